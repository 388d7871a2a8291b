/* A ranker over its candidates (serving/ranking/layers.py): what is added up of user and item, the cross features' layer, the layers on top.
 *
 * A few candidates at a time, sixteen outputs wide. Every sum runs over its inputs in order with one rounding a step (fused multiply-add) and
 * adds the bias last: the order of ONNX Runtime's float32 products on this kind of CPU, so the logits are the same bits. Whether they are is
 * tried out when a bundle is loaded. Without AVX-512, or AVX2 with FMA and F16C, there is no loop here, and the graph runs.
 */
#include "kernel.h"

#ifdef X86

enum { PANEL = 16, MOST_LAYERS = 8, WIDEST = 1024, MOST_AT_ONCE = 48 };

typedef struct {
    const float *weights, *last;    /* panels of (inputs, PANEL); (outputs,) the bias, of the first layer the user's half */
    const uint16_t *const *halves, *const *ahead; /* of the first layer the items' halves, and those of the next block */
    size_t inputs, outputs, in_width, out_width;
    int bent; /* nothing below 0 */
} Layer;

/* Outputs with those that fill up the last panel. */
static inline size_t whole(size_t outputs) { return (outputs + PANEL - 1) / PANEL * PANEL; }

/* Beyond the end the last candidate once more. */
static inline size_t place_of(const Ranker *r, size_t c) {
    c = c < r->count ? c : r->count - 1;
    return r->at ? (size_t)r->at[c] : c;
}

static Layer layer_after(const Ranker *r, size_t number, Layer before) {
    const float *weights = before.weights + before.inputs * before.out_width + (number > 1 ? before.out_width : 0);
    size_t outputs = (size_t)r->sizes[number + 1];
    return (Layer){weights, weights + before.outputs * whole(outputs), NULL, NULL, before.outputs, outputs, before.out_width, whole(outputs), number + 1 < r->layers};
}

#define KIND(name) name##_avx512
#define ON __attribute__((target("avx512f")))
#define Line __m512
#define LANES 16
#define TALL 12
#define NOTHING _mm512_setzero_ps()
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SPREAD _mm512_set1_ps
#define FUSED _mm512_fmadd_ps
#define ADD _mm512_add_ps
#define MOST _mm512_max_ps
#define WIDEN(halves) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(halves)))
#include "panels.h"

#undef KIND
#undef ON
#undef Line
#undef LANES
#undef TALL
#undef NOTHING
#undef LOAD
#undef STORE
#undef SPREAD
#undef FUSED
#undef ADD
#undef MOST
#undef WIDEN

#define KIND(name) name##_avx2
#define ON __attribute__((target("avx2,fma,f16c")))
#define Line __m256
#define LANES 8
#define TALL 6
#define NOTHING _mm256_setzero_ps()
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SPREAD _mm256_set1_ps
#define FUSED _mm256_fmadd_ps
#define ADD _mm256_add_ps
#define MOST _mm256_max_ps
#define WIDEN(halves) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(halves)))
#include "panels.h"


int ranks_here(void) { return __builtin_cpu_supports("avx512f") || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")); }

ptrdiff_t panels_of(const int64_t *sizes, size_t layers) {
    size_t expected = 0;
    if (layers < 1 || layers > MOST_LAYERS) return OUTSIDE;
    for (size_t l = 0; l <= layers; l++)
        if (sizes[l] < 1 || sizes[l] > WIDEST) return OUTSIDE;
    for (size_t l = 0; l < layers; l++) expected += ((size_t)sizes[l] + (l ? 1 : 0)) * whole((size_t)sizes[l + 1]);
    return sizes[1] % PANEL ? OUTSIDE : (ptrdiff_t)expected;
}

int rank_candidates(const Ranker *r, float *out) {
    float *room = kept_memory(KEPT_SUMS, 2 * MOST_AT_ONCE * WIDEST * 4);
    if (!room) return NO_MEMORY;
    if (r->count) (__builtin_cpu_supports("avx512f") ? rank_avx512 : rank_avx2)(r, room, out);
    return 0;
}
#else
int ranks_here(void) { return 0; }
ptrdiff_t panels_of(const int64_t *sizes, size_t layers) { return OUTSIDE; }
int rank_candidates(const Ranker *r, float *out) { return NO_MEMORY; }
#endif

int final_scores(const float *logits, const uint8_t *seen, const float *lifts, const int32_t *at, size_t count, Heads heads, float *out) {
    double *chances = kept_memory(KEPT_SUMS, (count * heads.count + 1) * 8);
    size_t asked = 0, told = 0;
    if (!chances) return NO_MEMORY;
    for (size_t c = 0; c < count; c++) {
        size_t place = at ? (size_t)at[c] : c;
        const uint8_t *judges = heads.judges + heads.count * !!seen[place];
        for (size_t h = 0; h < heads.count; h++) {
            float own = logits[heads.count * c + h];
            if (judges[h]) chances[asked++] = -(double)(lifts ? own + lifts[place] : own);
        }
    }
    exps(chances, asked);
    for (size_t c = 0; c < count; c++) {
        const uint8_t *judges = heads.judges + heads.count * !!seen[at ? (size_t)at[c] : c];
        double worth = 0;
        for (size_t h = 0; h < heads.count; h++)
            if (judges[h]) worth += heads.weights[h] / (heads.floors[h] + chances[told++]);
        out[c] = (float)worth;
    }
    return 0;
}
