/* The scan of the two-tower source (serving/retrieval/int8_scan.py): every int8 row times one int8 vector, times the row's scale, plus its prior. */
#include "kernel.h"

#define BLOCK 16   /* rows at a time */
#define AHEAD 3072 /* bytes: what is scanned next is fetched so far before, because the hardware's own fetching stops at each page of 4 KB */

typedef void (*dots_fn)(const int8_t *table, const int8_t *vector, size_t width, int32_t *sums);

static void dots_plain(const int8_t *table, const int8_t *vector, size_t width, int32_t *sums) {
    for (int i = 0; i < BLOCK; i++) {
        int32_t sum = 0;
        for (size_t d = 0; d < width; d++) sum += (int32_t)table[(size_t)i * width + d] * vector[d];
        sums[i] = sum;
    }
}

#ifdef X86
/* Eight registers, each summed up. */
__attribute__((target("avx2"))) static inline __m256i totals(const __m256i *s) {
    __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
    __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(s[4], s[5]), _mm256_hadd_epi32(s[6], s[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

/* width is a multiple of 32. maddubs wants one side unsigned: |t| * (v with the sign of t), in pairs at most 2 * 128 * 127, which 16 bits hold. */
__attribute__((target("avx2"))) static inline void dots_avx2_of(const int8_t *table, const int8_t *vector, size_t width, int32_t *sums) {
    __m256i ones = _mm256_set1_epi16(1), s[8];
    for (int eight = 0; eight < BLOCK; eight += 8) {
        for (int i = 0; i < 8; i++) {
            const int8_t *row = table + (size_t)(eight + i) * width;
            s[i] = _mm256_setzero_si256();
            for (size_t d = 0; d < width; d += 32) {
                __m256i t = _mm256_loadu_si256((const __m256i *)(row + d)), v = _mm256_loadu_si256((const __m256i *)(vector + d));
                __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(t), _mm256_sign_epi8(v, t));
                s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(pairs, ones));
            }
        }
        _mm256_storeu_si256((__m256i *)(sums + eight), totals(s));
    }
}

__attribute__((target("avx2"))) static void dots_avx2(const int8_t *table, const int8_t *vector, size_t width, int32_t *sums) {
    dots_avx2_of(table, vector, width, sums);
}

__attribute__((target("avx2"))) static void dots_avx2_64(const int8_t *table, const int8_t *vector, size_t width, int32_t *sums) {
    (void)width;
    dots_avx2_of(table, vector, 64, sums); /* a known width: the vector stays in registers */
}

/* Sums of four rows within each 128 bits: [a, b, c, d] four times, still to be added up. */
__attribute__((target("avx512f"))) static inline __m512i four(__m512i a, __m512i b, __m512i c, __m512i d) {
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

__attribute__((target("avx512f"))) static inline __m512i halved(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* width is 64: one row is one register. dpbusd wants one side unsigned: (t + 128) . v - 128 * sum(v). */
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static void dots_vnni64(
    const int8_t *table, const int8_t *vector, size_t width, int32_t *sums) {
    __m512i high = _mm512_set1_epi8((char)0x80), v = _mm512_loadu_si512(vector), s[BLOCK];
    __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_dpbusd_epi32(_mm512_setzero_si512(), high, v)); /* - 128 * sum(v), in 16 parts */
    for (int i = 0; i < BLOCK; i++) s[i] = _mm512_dpbusd_epi32(start, _mm512_xor_si512(_mm512_loadu_si512(table + 64 * i), high), v);
    __m512i first = halved(four(s[0], s[1], s[2], s[3]), four(s[4], s[5], s[6], s[7]));
    __m512i second = halved(four(s[8], s[9], s[10], s[11]), four(s[12], s[13], s[14], s[15]));
    _mm512_storeu_si512(sums, halved(first, second));
}
#endif

static dots_fn choose_dots(size_t width) {
#ifdef X86
    __builtin_cpu_init();
    if (width == 64 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) return dots_vnni64;
    if (width % 32 == 0 && __builtin_cpu_supports("avx2")) return width == 64 ? dots_avx2_64 : dots_avx2;
#endif
    return dots_plain;
}

/* Sums of `rows` rows (BLOCK of them, but for the last) into scores. */
HOT static void scored(const int32_t *sums, size_t rows, float scale, const float *scales, const float *prior, float *out) {
    if (scales && rows == BLOCK)
        for (size_t i = 0; i < BLOCK; i++) out[i] = (float)sums[i] * scale * scales[i] + prior[i];
    else if (scales)
        for (size_t i = 0; i < rows; i++) out[i] = (float)sums[i] * scale * scales[i] + prior[i];
    else
        for (size_t i = 0; i < rows; i++) out[i] = (float)sums[i] * scale;
}

static void scan(const int8_t *table, const int8_t *vector, size_t items, size_t width, float scale, const float *scales, const float *prior, float *out) {
    dots_fn dots = choose_dots(width);
    int32_t sums[BLOCK];
    for (size_t begin = 0; begin < items; begin += BLOCK) {
        size_t rows = items - begin < BLOCK ? items - begin : BLOCK;
        if (rows == BLOCK) {
            for (size_t b = 0; b < BLOCK * width; b += 64) __builtin_prefetch(table + begin * width + AHEAD + b);
            dots(table + begin * width, vector, width, sums);
        } else {
            for (size_t i = 0; i < rows; i++) {
                sums[i] = 0;
                for (size_t d = 0; d < width; d++) sums[i] += (int32_t)table[(begin + i) * width + d] * vector[d];
            }
        }
        scored(sums, rows, scale, scales ? scales + begin : NULL, scales ? prior + begin : NULL, out + begin);
    }
}

/* The vector as int8 and the scale that makes it so again, as serving/retrieval/int8_scan.py rounds it. */
static float rounded(const float *vector, size_t width, int8_t *out) {
    float most = 0;
    for (size_t d = 0; d < width; d++) most = fabsf(vector[d]) > most ? fabsf(vector[d]) : most;
    float scale = (float)((most > 1e-30 ? (double)most : 1e-30) / 127);
    for (size_t d = 0; d < width; d++) out[d] = (int8_t)rintf(vector[d] / scale);
    return scale;
}

int products(const Table *t, const float *vector, float *out) {
    int8_t *whole = kept_memory(KEPT_KINDS, t->width + 64);
    if (!whole) return NO_MEMORY;
    float scale = rounded(vector, t->width, whole);
    scan(t->rows, whole, t->items, t->width, scale, t->scales, t->prior, out);
    return 0;
}

int spans(const Table *t, const float *vector, const int64_t *begins, const int64_t *ends, size_t count, float *out) {
    int8_t *whole = kept_memory(KEPT_KINDS, t->width + 64);
    if (!whole) return NO_MEMORY;
    float scale = rounded(vector, t->width, whole);
    for (size_t l = 0; l < count; l++) {
        size_t begin = (size_t)begins[l], size = (size_t)(ends[l] - begins[l]);
        scan(t->rows + begin * t->width, whole, size, t->width, scale, t->scales + begin, t->prior + begin, out);
        out += size;
    }
    return 0;
}

/* The first n of `best`, every `every`-th place given to the next marked one, which is not said twice. */
static size_t mix(const Scored *best, size_t kept, size_t n, const uint8_t *marked, size_t every, int32_t *rows, float *scores) {
    size_t at = 0, next = 0, used = 0, met = 0, size = 0, turns = n / every, listed = kept < n ? kept : n;
    while (size < n) {
        while (next < kept && !marked[best[next].at]) next++;
        while (at < listed && marked[best[at].at] && met < turns) at++, met++; /* the first marked ones have turns of their own */
        int left = used < turns && next < kept;
        if (left && (size % every == every - 1 || at >= listed)) list_out(best + next++, 1, NULL, rows + size, scores + size), used++;
        else if (at < listed) list_out(best + at++, 1, NULL, rows + size, scores + size);
        else break;
        size++;
    }
    return size;
}

ptrdiff_t search(const Table *t, const float *vector, const uint8_t *marked, size_t every, size_t n, Excluded out, float *values, int32_t *rows, float *scores) {
    Scored *best;
    float *kept = products(t, vector, values) < 0 ? NULL : bar(values, out);
    if (!kept) return NO_MEMORY;
    ptrdiff_t found = best_of(values, t->items, n, -INFINITY, marked, n / every, &best);
    unbar(values, out, kept);
    return found < 0 ? found : (ptrdiff_t)mix(best, (size_t)found, n, marked, every, rows, scores);
}
