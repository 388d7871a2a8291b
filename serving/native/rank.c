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
    const uint16_t *halves;
    const int32_t *rows, *at; /* at NULL: all rows are asked about */
    const float *user, *cross, *mean, *scale, *panels;
    const int64_t *sizes; /* inputs, then what each layer gives */
    float clip;
    size_t count, layers; /* count: of those asked about */
} Ranker;

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

static int sound(const Ranker *r, const Py_buffer *v, size_t items, size_t pool) {
    size_t expected = 0;
    if (r->layers < 1 || r->layers > MOST_LAYERS) return 0;
    for (size_t l = 0; l <= r->layers; l++)
        if (r->sizes[l] < 1 || r->sizes[l] > WIDEST) return 0;
    for (size_t l = 0; l < r->layers; l++) expected += ((size_t)r->sizes[l] + (l ? 1 : 0)) * whole((size_t)r->sizes[l + 1]);
    size_t inputs = (size_t)r->sizes[0], width = (size_t)r->sizes[1];
    if (width % PANEL || (size_t)v[3].len != width * 4 || (size_t)v[4].len != pool * inputs * 4 || (size_t)v[5].len != inputs * 4 ||
        (size_t)v[6].len != inputs * 4 || (size_t)v[7].len != expected * 4 || (size_t)v[9].len != r->count * (size_t)r->sizes[r->layers] * 4)
        return 0;
    for (size_t c = 0; c < r->count; c++) {
        if (r->at && (r->at[c] < 0 || (size_t)r->at[c] >= pool)) return 0;
        int32_t row = r->rows[place_of(r, c)];
        if (row < 0 || (size_t)row >= items) return 0;
    }
    return 1;
}
#endif

/* judge(halves float16 (I, H), rows int32 (C,), at int32 (K,) positions asked about or None for all, user float32 (H,), cross float32 (C, Fx),
 *       mean float32 (Fx,), scale float32 (Fx,), clip, panels float32, sizes int64, out float32 (K, n)) -> whether it was done */
PyObject *py_judge(PyObject *self, PyObject *args) {
    Py_buffer v[10] = {{0}};
    float clip;
    if (!PyArg_ParseTuple(args, "y*y*z*y*y*y*y*fy*y*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &clip, &v[7], &v[8], &v[9])) return NULL;
    int done = 0, wrong = 0;
#ifdef X86
    int wide = __builtin_cpu_supports("avx512f"), able = wide || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"));
    float *room = able ? kept_memory(KEPT_SUMS, 2 * MOST_AT_ONCE * WIDEST * 4) : NULL;
    if (room) {
        size_t pool = (size_t)v[1].len / 4;
        Ranker r = {v[0].buf, v[1].buf, v[2].buf, v[3].buf, v[4].buf, v[5].buf, v[6].buf, v[7].buf, v[8].buf, clip, v[2].buf ? (size_t)v[2].len / 4 : pool, (size_t)v[8].len / 8 - 1};
        wrong = v[8].len < 16 || !sound(&r, v, (size_t)v[0].len / 2 / (size_t)(r.sizes[1] > 0 ? r.sizes[1] : 1), pool);
        if (!wrong && r.count) (wide ? judge_avx512 : judge_avx2)(&r, room, v[9].buf);
        done = !wrong;
    }
#endif
    give_back((Given){v, 10});
    if (PyErr_Occurred()) return NULL;
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected rows, halves, features and weights of one ranker");
    return PyBool_FromLong(done);
}

/* worth(logits float32 (K, 2), seen uint8 (C,), lifts float32 (C,) or None, at int32 (K,) positions in the two or None for all, repeat, discover,
 *       out float32 (K,)): weight / (1 + exp(-logit)) of the head that counts, with its lift */
PyObject *py_worth(PyObject *self, PyObject *args) {
    Py_buffer v[5] = {{0}};
    double weight[2];
    if (!PyArg_ParseTuple(args, "y*y*z*z*ddw*", &v[0], &v[1], &v[2], &v[3], &weight[1], &weight[0], &v[4])) return NULL;
    size_t pool = (size_t)v[1].len, count = v[3].buf ? (size_t)v[3].len / 4 : pool;
    const float *logits = v[0].buf, *lifts = v[2].buf;
    const uint8_t *seen = v[1].buf;
    const int32_t *at = v[3].buf;
    float *out = v[4].buf;
    int wrong = (size_t)v[0].len != count * 8 || (size_t)v[4].len != count * 4 || (lifts && (size_t)v[2].len != pool * 4);
    for (size_t c = 0; c < count && at; c++) wrong |= (size_t)at[c] >= pool;
    double *chances = wrong ? NULL : kept_memory(KEPT_SUMS, (count + 1) * 8);
    if (chances) {
        for (size_t c = 0; c < count; c++) {
            size_t place = at ? (size_t)at[c] : c;
            float own = logits[2 * c + !seen[place]];
            chances[c] = -(double)(lifts ? own + lifts[place] : own);
        }
        exps(chances, count);
        for (size_t c = 0; c < count; c++) out[c] = (float)(weight[seen[at ? (size_t)at[c] : c] != 0] / (1.0 + chances[c]));
    }
    give_back((Given){v, 5});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected two logits of each of %zu candidates", count);
    if (!chances) return NULL;
    Py_RETURN_NONE;
}
