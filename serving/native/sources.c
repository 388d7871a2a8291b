/* Sums over the history (serving/sources/): votes of its items for their neighbours, offers times the user's lifts, the history bag. */
#include "kernel.h"

typedef struct {
    const void *neighbours;
    const int16_t *weights;
    size_t size, k, entry; /* rows, neighbours of each, bytes of a neighbour */
} Votes;

static const char *add_votes(Votes t, size_t voter, float strength, double *sums) {
    const int16_t *line = t.weights + voter * t.k;
    const uint16_t *narrow = (const uint16_t *)t.neighbours + voter * t.k;
    const int32_t *wide = (const int32_t *)t.neighbours + voter * t.k;
    for (size_t j = 0; j < t.k; j++) {
        size_t to = t.entry == 2 ? narrow[j] : (size_t)wide[j];
        if (to >= t.size) return "a neighbour is outside of the table";
        sums[to] += (double)((float)line[j] * strength);
    }
    return NULL;
}

static void ask_for(Votes t, size_t voter) {
    const char *next = (const char *)t.neighbours + voter * t.k * t.entry, *weight = (const char *)(t.weights + voter * t.k);
    for (size_t b = 0; b < t.k * t.entry; b += 64) __builtin_prefetch(next + b);
    for (size_t b = 0; b < t.k * 2; b += 64) __builtin_prefetch(weight + b);
}

/* votes(neighbours (M, K) uint16 or int32, weights int16 (M, K), scales float32 (M,), positions int32 (I,), rows int32 (H,), interest float32 (H,),
 *       excluded int32, n, sums float32 (M,) out, positions int32 (n,) out) -> how many positions: the n best above 0; -1: no row had a vote */
PyObject *py_votes(PyObject *self, PyObject *args) {
    Py_buffer v[9] = {{0}};
    Py_ssize_t n, found = -1;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*nw*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &n, &v[7], &v[8])) return NULL;
    size_t asked = (size_t)v[4].len / 4, known = (size_t)v[3].len / 4, size = (size_t)v[7].len / 4, entries = (size_t)v[1].len / 2, voters = 0;
    Votes t = {v[0].buf, v[1].buf, size, size ? entries / size : 0, entries ? (size_t)v[0].len / entries : 2};
    const int32_t *at = v[3].buf, *rows = v[4].buf;
    const char *problem = NULL;
    double *sums = kept_memory(KEPT_SUMS, (size + 1) * 8);
    Scored *voter = kept_memory(KEPT_FOUND, (asked + 1) * sizeof(Scored));
    if (v[5].len != v[4].len || v[2].len != v[7].len) problem = "expected an interest for every row, and a scale for every voter";
    else if (t.entry != 2 && t.entry != 4) problem = "expected neighbours of 2 or 4 bytes";
    else if (size == 0 || entries % size) problem = "expected the same number of neighbours for every row";
    else if (n < 0 || v[8].len != n * 4) problem = "expected room for n positions";
    if (!problem && sums && voter) {
        for (size_t h = 0; h < asked; h++) {
            size_t place = rows[h] >= 0 && (size_t)rows[h] < known ? (size_t)at[rows[h]] : size; /* -1 is beyond all of them */
            if (place < size) voter[voters++] = (Scored){((const float *)v[5].buf)[h] * ((const float *)v[2].buf)[place], (int32_t)place};
        }
        memset(sums, 0, size * 8);
        for (size_t h = 0; h < voters && !problem; h++) {
            if (h + 1 < voters) ask_for(t, (size_t)voter[h + 1].at);
            problem = add_votes(t, (size_t)voter[h].at, voter[h].score, sums);
        }
        for (size_t m = 0; m < size; m++) ((float *)v[7].buf)[m] = (float)sums[m];
        if (!problem && voters) found = best_but(v[7].buf, size, (size_t)n, 0, v[6].buf, (size_t)v[6].len / 4, v[8].buf);
    }
    give_back((Given){v, 9});
    if (problem) PyErr_Format(PyExc_ValueError, "%s", problem);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(found);
}

#ifdef X86
__attribute__((target("avx512f"))) static size_t lift_wide(
    const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    size_t a = 0;
    for (; a + 16 <= offers; a += 16) {
        __m512i kinds = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(first + a)));
        __m512i others = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(second + a)));
        __m512 lifted = _mm512_mul_ps(_mm512_loadu_ps(worth + a), _mm512_i32gather_ps(kinds, one, 4));
        _mm512_storeu_ps(out + a, _mm512_mul_ps(lifted, _mm512_i32gather_ps(others, other, 4)));
    }
    return a;
}

__attribute__((target("avx2"))) static size_t lift_avx2(
    const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    size_t a = 0;
    for (; a + 8 <= offers; a += 8) {
        __m256i kinds = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(first + a)));
        __m256i others = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(second + a)));
        __m256 lifted = _mm256_mul_ps(_mm256_loadu_ps(worth + a), _mm256_i32gather_ps(one, kinds, 4));
        _mm256_storeu_ps(out + a, _mm256_mul_ps(lifted, _mm256_i32gather_ps(other, others, 4)));
    }
    return a;
}
#endif

static void lift_all(const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    size_t a = 0;
#ifdef X86
    if (__builtin_cpu_supports("avx512f")) a = lift_wide(worth, first, one, second, other, offers, out);
    else if (__builtin_cpu_supports("avx2")) a = lift_avx2(worth, first, one, second, other, offers, out);
#endif
    for (; a < offers; a++) out[a] = worth[a] * one[first[a]] * other[second[a]];
}

HOT static int lacks(const uint16_t *kinds, size_t count, size_t limit) {
    uint16_t most = 0;
    for (size_t i = 0; i < count; i++) most = kinds[i] > most ? kinds[i] : most;
    return count && most >= limit;
}

typedef struct {
    const int32_t *codes, *rows; /* (I, G) of every item, (H,) */
    const float *weights, *shares; /* (H,), (N,) */
    const int64_t *ends;           /* (G,) where each grouping's codes end */
    const double *powers;          /* (G,) */
    size_t count, groups, size;
    double prior, total;
} Taste;

/* (N,) how much more the user goes for each code than everyone does, to its power; `sums` (N,) are all zero before and after. */
static void code_lifts(const Taste *t, double *sums, int32_t *touched, double *bases, double *exponents, float *lifts) {
    size_t met = 0, begin = 0;
    for (size_t g = 0; g < t->groups; begin = (size_t)t->ends[g++]) {
        float without = (float)pow(t->prior / t->total, t->powers[g]);
        for (size_t code = begin; code < (size_t)t->ends[g]; code++) lifts[code] = without;
        for (size_t h = 0; h < t->count; h++) {
            int32_t code = t->codes[(size_t)t->rows[h] * t->groups + g];
            if (code < 0 || (size_t)code >= t->size || !(t->weights[h] > 0)) continue;
            if (sums[code] == 0) exponents[met] = t->powers[g], touched[met++] = code;
            sums[code] += (double)t->weights[h];
        }
    }
    for (size_t i = 0; i < met; i++) bases[i] = (sums[touched[i]] / (double)t->shares[touched[i]] + t->prior) / t->total, sums[touched[i]] = 0;
    powers(bases, exponents, met);
    for (size_t i = 0; i < met; i++) lifts[touched[i]] = (float)bases[i];
}

static int sound_taste(const Taste *t, size_t items) {
    int wrong = !t->groups || t->groups > 8;
    for (size_t g = 0; g < t->groups && !wrong; g++) wrong = t->ends[g] < (g ? t->ends[g - 1] : 0) || (size_t)t->ends[g] > t->size;
    for (size_t h = 0; h < t->count && !wrong; h++) wrong = t->rows[h] < 0 || (size_t)t->rows[h] >= items;
    return !wrong;
}

/* The product of the lifts of each kind's codes (groupings, kinds). */
static int kind_lifts(const int32_t *codes, size_t entries, size_t kinds, const float *lifts, size_t all, float *out) {
    for (size_t begin = 0; begin + kinds <= entries; begin += kinds)
        for (size_t k = 0; k < kinds; k++) {
            size_t code = (size_t)codes[begin + k];
            if (code >= all) return 0;
            out[k] = begin ? out[k] * lifts[code] : lifts[code];
        }
    return entries % kinds == 0;
}

/* offers(codes int32 (I, G), rows int32 (H,), weights float32 (H,), shares float32 (N,), ends int64 (G,), powers float64 (G,), prior, total,
 *        worth float32 (A,), first kinds uint16 (A,), their codes int32 (g, K), K, second kinds, codes, K, excluded int32, n,
 *        scores float32 (A,) out, positions int32 (n,) out) -> how many positions: worth x lifts of each offer, and the n best above 0 */
PyObject *py_offers(PyObject *self, PyObject *args) {
    enum { CODES, ROWS, WEIGHTS, SHARES, ENDS, POWERS, WORTH, FIRST, FIRST_CODES, SECOND, SECOND_CODES, EXCLUDED, SCORES, BEST, ALL };
    Py_buffer v[ALL] = {{0}};
    Py_ssize_t kinds[2], n, found = -1;
    double prior, total;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*ddy*y*y*ny*y*ny*nw*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &prior, &total, &v[6], &v[7], &v[8], &kinds[0], &v[9],
                          &v[10], &kinds[1], &v[11], &n, &v[12], &v[13])) return NULL;
    size_t groups = (size_t)v[ENDS].len / 8, offers = (size_t)v[SCORES].len / 4, size = (size_t)v[SHARES].len / 4, count = (size_t)v[ROWS].len / 4, room = count * groups + 1;
    Taste taste = {v[CODES].buf, v[ROWS].buf, v[WEIGHTS].buf, v[SHARES].buf, v[ENDS].buf, v[POWERS].buf, count, groups, size, prior, total};
    int sound = v[WORTH].len == v[SCORES].len && (size_t)v[FIRST].len == offers * 2 && (size_t)v[SECOND].len == offers * 2 && kinds[0] >= 1 && kinds[1] >= 1 && n >= 0 &&
                v[BEST].len == n * 4 && v[WEIGHTS].len == v[ROWS].len && (size_t)v[POWERS].len == groups * 8 && groups && sound_taste(&taste, (size_t)v[CODES].len / 4 / groups);
    double *sums = sound ? kept_zeros(KEPT_TABLE, (size + 1) * 8) : NULL, *bases = sound ? kept_memory(KEPT_SUMS, room * 20) : NULL;
    float *lifts = sound ? kept_memory(KEPT_KINDS, (size + (size_t)(kinds[0] + kinds[1])) * 4) : NULL, *one = lifts + size, *other = one + kinds[0], *scores = v[SCORES].buf;
    if (sums && bases && lifts) {
        code_lifts(&taste, sums, (int32_t *)(bases + 2 * room), bases, bases + room, lifts);
        sound = kind_lifts(v[FIRST_CODES].buf, (size_t)v[FIRST_CODES].len / 4, (size_t)kinds[0], lifts, size, one) &&
                kind_lifts(v[SECOND_CODES].buf, (size_t)v[SECOND_CODES].len / 4, (size_t)kinds[1], lifts, size, other) &&
                !lacks(v[FIRST].buf, offers, (size_t)kinds[0]) && !lacks(v[SECOND].buf, offers, (size_t)kinds[1]);
        if (sound) lift_all(v[WORTH].buf, v[FIRST].buf, one, v[SECOND].buf, other, offers, scores);
        if (sound) found = best_but(scores, offers, (size_t)n, 0, v[EXCLUDED].buf, (size_t)v[EXCLUDED].len / 4, v[BEST].buf);
    }
    give_back((Given){v, ALL});
    if (!sound) return PyErr_Format(PyExc_ValueError, "expected %zu worths and kinds, kinds with codes that have a lift, and weights of rows of the catalogue", offers);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, mantissa = half & 1023, bits;
    if (exponent == 31) bits = sign | 0x7f800000u | (mantissa << 13);
    else if (exponent) bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    else {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* out (+)= weight * row, of float16 */
static void add_halves(const uint16_t *row, float weight, const float *base, float *out, size_t width) {
    for (size_t d = 0; d < width; d++) out[d] = base[d] + weight * half_to_float(row[d]);
}

#ifdef X86
__attribute__((target("avx512f"))) static void add_halves_wide(const uint16_t *row, float weight, const float *base, float *out, size_t width) {
    __m512 times = _mm512_set1_ps(weight);
    for (size_t d = 0; d < width; d += 16) {
        __m512 part = _mm512_mul_ps(times, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + d))));
        _mm512_storeu_ps(out + d, _mm512_add_ps(_mm512_loadu_ps(base + d), part));
    }
}

__attribute__((target("avx2,f16c"))) static void add_halves_avx2(const uint16_t *row, float weight, const float *base, float *out, size_t width) {
    __m256 times = _mm256_set1_ps(weight);
    for (size_t d = 0; d < width; d += 8) {
        __m256 part = _mm256_mul_ps(times, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + d))));
        _mm256_storeu_ps(out + d, _mm256_add_ps(_mm256_loadu_ps(base + d), part));
    }
}
#endif

typedef void (*add_fn)(const uint16_t *, float, const float *, float *, size_t);

static add_fn choose_add(size_t width) {
#ifdef X86
    __builtin_cpu_init();
    if (width % 16 == 0 && __builtin_cpu_supports("avx512f")) return add_halves_wide;
    if (width % 8 == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return add_halves_avx2;
#endif
    return add_halves;
}

/* bag(table float16 (I, D), rows int32 (H,), weights float32 (H,), out float32 (D,)): the weighted sum, row after row */
PyObject *py_bag(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t width = (size_t)v[3].len / 4, items = width ? (size_t)v[0].len / (2 * width) : 0, count = (size_t)v[1].len / 4;
    const int32_t *rows = v[1].buf;
    int wrong = v[1].len != v[2].len;
    for (size_t h = 0; h < count; h++) wrong |= rows[h] < 0 || (size_t)rows[h] >= items;
    if (!wrong) {
        add_fn add = choose_add(width);
        memset(v[3].buf, 0, (size_t)v[3].len);
        for (size_t h = 0; h < count; h++) {
            if (h + 8 < count) __builtin_prefetch((const uint16_t *)v[0].buf + (size_t)rows[h + 8] * width);
            add((const uint16_t *)v[0].buf + (size_t)rows[h] * width, ((const float *)v[2].buf)[h], v[3].buf, v[3].buf, width);
        }
    }
    give_back((Given){v, 4});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected a weight for every row, and rows within a table of %zu", items);
    Py_RETURN_NONE;
}

/* halves(table float16 (I, H), rows int32 (C,), user float32 (H,), out float32 (C, H)): item half + user half */
PyObject *py_halves(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t width = (size_t)v[2].len / 4, items = width ? (size_t)v[0].len / (2 * width) : 0, count = (size_t)v[1].len / 4;
    const int32_t *rows = v[1].buf;
    int wrong = (size_t)v[3].len != count * width * 4;
    for (size_t c = 0; c < count; c++) wrong |= rows[c] < 0 || (size_t)rows[c] >= items;
    if (!wrong) {
        add_fn add = choose_add(width);
        for (size_t c = 0; c < count; c++) {
            if (c + 8 < count)
                for (size_t d = 0; d < width; d += 32) __builtin_prefetch((const uint16_t *)v[0].buf + (size_t)rows[c + 8] * width + d);
            add((const uint16_t *)v[0].buf + (size_t)rows[c] * width, 1.0f, v[2].buf, (float *)v[3].buf + c * width, width);
        }
    }
    give_back((Given){v, 4});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected rows within a table of %zu, and room for %zu x %zu", items, count, width);
    Py_RETURN_NONE;
}
