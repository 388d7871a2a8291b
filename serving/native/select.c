/* The best n of many: a threshold from a sample of the scores, then a sort of the few that reach it (serving/retrieval/top_k.py). */
#include <stdlib.h>

#include "kernel.h"

#define SAMPLE 2048
#define SLACK 1.3
#define BUCKETS 2048 /* 11 bits of a key */

void *kept_memory(int purpose, size_t bytes) {
    static void *memory[PURPOSES];
    static size_t size[PURPOSES];
    if (size[purpose] < bytes) {
        void *more = realloc(memory[purpose], bytes + bytes / 4);
        if (!more) return NULL;
        memory[purpose] = more, size[purpose] = bytes + bytes / 4;
    }
    return memory[purpose];
}

void *kept_zeros(int purpose, size_t bytes) {
    static size_t cleared[PURPOSES];
    char *memory = kept_memory(purpose, bytes);
    if (memory && cleared[purpose] < bytes) {
        memset(memory, 0, bytes); /* all of it: whoever wrote has put zeros back, so nothing is lost */
        cleared[purpose] = bytes;
    }
    return memory;
}

HOT int within(const int32_t *rows, size_t count, size_t below) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= (size_t)rows[i] >= below; /* a negative row is beyond all of them */
    return !wrong;
}

HOT int within_narrow(const uint16_t *rows, size_t count, size_t below) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= rows[i] >= below;
    return !wrong;
}

/* A float's bits, turned so that greater floats have smaller keys. + 0: there is no negative zero. */
static inline uint32_t key_of(float score) {
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, 4);
    return ~(bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u));
}

static inline float score_of(uint32_t key) {
    uint32_t bits = ~key;
    bits = bits & 0x80000000u ? bits ^ 0x80000000u : ~bits;
    float score;
    memcpy(&score, &bits, 4);
    return isnan(score) ? -INFINITY : score;
}

_Static_assert(sizeof(Scored) == 8, "a score and its place are sorted as one number");

Scored *falling(Scored *found, Scored *spare, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t one = (uint64_t)key_of(found[i].score) << 32 | i;
        memcpy(&spare[i], &one, 8);
    }
    sort_numbers(spare, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t one;
        memcpy(&one, &spare[i], 8);
        spare[i] = found[(uint32_t)one];
    }
    return spare;
}

/* The rank-th smallest of the keys, its last ten bits filled up: two counts of eleven bits each. */
static uint32_t near_rank(const uint32_t *keys, size_t count, size_t rank) {
    uint32_t many[BUCKETS] = {0}, upper = 0, lower = 0;
    for (size_t i = 0; i < count; i++) many[keys[i] >> 21]++;
    while (rank > many[upper]) rank -= many[upper++];
    memset(many, 0, sizeof many);
    for (size_t i = 0; i < count; i++)
        if (keys[i] >> 21 == upper) many[(keys[i] >> 10) & 2047]++;
    while (rank > many[lower]) rank -= many[lower++];
    return upper << 21 | lower << 10 | 1023;
}

float near_nth(const float *scores, size_t count, size_t n, uint32_t *keys) {
    for (size_t i = 0; i < count; i++) keys[i] = key_of(scores[i]);
    return score_of(near_rank(keys, count, n ? n : 1));
}

/* A score that about SLACK * n of the wanted reach, from every stride-th; -inf where a sample would not pay. */
static float threshold(const float *scores, size_t count, size_t n, const uint8_t *wanted) {
    uint32_t sample[2 * SAMPLE];
    size_t stride = count / SAMPLE, taken = 0;
    if (stride < 2) return -INFINITY;
    double share = (double)n * SLACK / (double)stride;
    size_t rank = (size_t)(share + 3 * sqrt(share)) + 1; /* three deviations more: a second look is rare */
    for (size_t i = 0; i < count && taken < 2 * SAMPLE; i += stride)
        if (!wanted || wanted[i]) sample[taken++] = key_of(scores[i]);
    return rank < taken ? score_of(near_rank(sample, taken, rank)) : -INFINITY;
}

typedef struct {
    float least, marked_least; /* of all, and of the marked ones */
    const uint8_t *marked;     /* NULL: none is */
    int above;                 /* all of them above `least`, not at it */
} Bounds;

static inline int reaches(Bounds b, const float *scores, size_t i) {
    return (b.above ? scores[i] > b.least : scores[i] >= b.least) || (b.marked && b.marked[i] && scores[i] >= b.marked_least);
}

#ifdef X86
__attribute__((target("avx512f,avx512bw,avx512vl"))) static size_t reach_wide(Bounds b, const float *scores, size_t count, Scored *found) {
    size_t kept = 0, i = 0;
    __m512 least = _mm512_set1_ps(b.least), marked_least = _mm512_set1_ps(b.marked_least);
    for (; i + 16 <= count; i += 16) {
        __m512 values = _mm512_loadu_ps(scores + i);
        __mmask16 hit = b.above ? _mm512_cmp_ps_mask(values, least, _CMP_GT_OQ) : _mm512_cmp_ps_mask(values, least, _CMP_GE_OQ);
        __mmask16 more = b.marked ? _mm512_cmp_ps_mask(values, marked_least, _CMP_GE_OQ) : 0;
        if (more) hit |= more & _mm_test_epi8_mask(_mm_loadu_si128((const void *)(b.marked + i)), _mm_set1_epi8(-1));
        while (hit) {
            size_t at = i + (size_t)__builtin_ctz(hit);
            found[kept++] = (Scored){scores[at], (int32_t)at};
            hit &= (__mmask16)(hit - 1);
        }
    }
    for (; i < count; i++)
        if (reaches(b, scores, i)) found[kept++] = (Scored){scores[i], (int32_t)i};
    return kept;
}

__attribute__((target("avx2"))) static size_t reach_avx2(Bounds b, const float *scores, size_t count, Scored *found) {
    size_t kept = 0, i = 0;
    __m256 least = _mm256_set1_ps(b.least), marked_least = _mm256_set1_ps(b.marked_least);
    for (; i + 8 <= count; i += 8) {
        __m256 values = _mm256_loadu_ps(scores + i);
        __m256 within = b.above ? _mm256_cmp_ps(values, least, _CMP_GT_OQ) : _mm256_cmp_ps(values, least, _CMP_GE_OQ);
        if (b.marked) {
            __m256i unmarked = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(b.marked + i))), _mm256_setzero_si256());
            within = _mm256_or_ps(within, _mm256_andnot_ps(_mm256_castsi256_ps(unmarked), _mm256_cmp_ps(values, marked_least, _CMP_GE_OQ)));
        }
        for (unsigned hit = (unsigned)_mm256_movemask_ps(within); hit; hit &= hit - 1) {
            size_t at = i + (size_t)__builtin_ctz(hit);
            found[kept++] = (Scored){scores[at], (int32_t)at};
        }
    }
    for (; i < count; i++)
        if (reaches(b, scores, i)) found[kept++] = (Scored){scores[i], (int32_t)i};
    return kept;
}
#endif

/* Those within the bounds, in order. */
static size_t reach(Bounds b, const float *scores, size_t count, Scored *found) {
#ifdef X86
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return reach_wide(b, scores, count, found);
    if (__builtin_cpu_supports("avx2")) return reach_avx2(b, scores, count, found);
#endif
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (reaches(b, scores, i)) found[kept++] = (Scored){scores[i], (int32_t)i};
    return kept;
}

/* Enough of what was found for `n` at `least`, and of the marked ones for `turns`? */
static int enough(Bounds b, const Scored *found, size_t kept, size_t n, size_t turns) {
    size_t all = 0, marked = 0;
    for (size_t i = 0; i < kept; i++) all += found[i].score >= b.least, marked += turns && b.marked[found[i].at];
    return all >= n && marked >= turns;
}

ptrdiff_t best_of(
    const float *scores, size_t count, size_t n, float floor, const uint8_t *marked, size_t turns, Scored **best) {
    Scored *found = kept_memory(KEPT_FOUND, (count + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (count + 1) * sizeof(Scored));
    if (!found || !spare) return NO_MEMORY;
    Bounds b = {threshold(scores, count, n, NULL), turns ? threshold(scores, count, turns, marked) : INFINITY, turns ? marked : NULL, 0};
    size_t kept = b.least > floor && (!turns || b.marked_least > floor) ? reach(b, scores, count, found) : 0;
    if (!kept || !enough(b, found, kept, n, turns)) kept = reach((Bounds){floor, INFINITY, NULL, 1}, scores, count, found);
    *best = falling(found, spare, kept);
    return (ptrdiff_t)kept;
}

float *bar(float *scores, Excluded out) {
    float *kept = kept_memory(KEPT_BARRED, (out.count + 1) * 4);
    for (size_t i = 0; i < out.count && kept; i++) kept[i] = scores[out.rows[i]], scores[out.rows[i]] = -INFINITY;
    return kept;
}

void unbar(float *scores, Excluded out, const float *kept) {
    while (out.count--) scores[out.rows[out.count]] = kept[out.count]; /* backwards: a row named twice gets its first value again */
}

ptrdiff_t best_but(float *scores, size_t count, size_t n, float floor, Excluded out, Scored **best) {
    float *kept = bar(scores, out);
    if (!kept) return NO_MEMORY;
    ptrdiff_t found = best_of(scores, count, n, floor, NULL, 0, best);
    unbar(scores, out, kept);
    return found > (ptrdiff_t)n ? (ptrdiff_t)n : found;
}

void list_out(const Scored *best, size_t count, const int32_t *names, int32_t *rows, float *scores) {
    for (size_t i = 0; i < count; i++) rows[i] = names ? names[best[i].at] : best[i].at, scores[i] = best[i].score;
}

int descending(const float *scores, size_t count, int32_t *order) {
    Scored *found = kept_memory(KEPT_FOUND, (count + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (count + 1) * sizeof(Scored));
    if (!found || !spare) return NO_MEMORY;
    for (size_t c = 0; c < count; c++) found[c] = (Scored){scores[c], (int32_t)c};
    const Scored *sorted = falling(found, spare, count);
    for (size_t c = 0; c < count; c++) order[c] = sorted[c].at;
    return 0;
}
