/* A ranker over its candidates (serving/layers.py): what is added up of user and item, the cross features' layer, the layers on top.
 *
 * Sixteen candidates at a time, one a lane. Every sum runs over its inputs in order with one rounding a step (fused multiply-add) and adds the
 * bias last: the order of ONNX Runtime's float32 products on this kind of CPU, so the logits are the same bits. Whether they are is tried
 * out when a bundle is loaded. Without AVX-512 there is no loop here, and the graph runs.
 */
#include "kernel.h"

enum { LANES = 16, MOST_LAYERS = 8, WIDEST = 1024, AT_ONCE = 16 };

#ifdef X86

typedef struct {
    const uint16_t *halves;
    const int32_t *rows;
    const float *user, *cross, *mean, *scale, *weights;
    const int64_t *sizes; /* inputs, then what each layer gives */
    float clip;
    size_t count, layers;
} Ranker;

typedef struct {
    const float *weights, *bias, *base; /* (inputs, outputs), (outputs,) or (outputs, lanes) */
    size_t inputs, outputs;
    int bent; /* nothing below 0 */
} Layer;

__attribute__((target("avx512f"))) static inline void finish(const Layer *l, size_t n, __m512 sum, float *out) {
    __m512 value = _mm512_add_ps(sum, l->base ? _mm512_loadu_ps(l->base + n * LANES) : _mm512_set1_ps(l->bias[n]));
    _mm512_storeu_ps(out + n * LANES, l->bent ? _mm512_max_ps(value, _mm512_setzero_ps()) : value);
}

/* Sixteen outputs at once, all sums in registers. */
__attribute__((target("avx512f"))) static void sixteen(const Layer *l, size_t begin, const float *in, float *out) {
    __m512 sums[AT_ONCE];
#pragma GCC unroll 16
    for (size_t n = 0; n < AT_ONCE; n++) sums[n] = _mm512_setzero_ps();
    const float *line = l->weights + begin;
    for (size_t k = 0; k < l->inputs; k++, line += l->outputs) {
        __m512 value = _mm512_loadu_ps(in + k * LANES);
#pragma GCC unroll 16
        for (size_t n = 0; n < AT_ONCE; n++) sums[n] = _mm512_fmadd_ps(_mm512_set1_ps(line[n]), value, sums[n]);
    }
#pragma GCC unroll 16
    for (size_t n = 0; n < AT_ONCE; n++) finish(l, begin + n, sums[n], out);
}

/* out[n][lane] = sum over k of weights[k][n] * in[k][lane], + bias[n] or + base[n][lane] */
__attribute__((target("avx512f"))) static void layer(const Layer *l, const float *in, float *out) {
    size_t begin = 0;
    for (; begin + AT_ONCE <= l->outputs; begin += AT_ONCE) sixteen(l, begin, in, out);
    for (size_t n = begin; n < l->outputs; n++) {
        __m512 sum = _mm512_setzero_ps();
        for (size_t k = 0; k < l->inputs; k++)
            sum = _mm512_fmadd_ps(_mm512_set1_ps(l->weights[k * l->outputs + n]), _mm512_loadu_ps(in + k * LANES), sum);
        finish(l, n, sum, out);
    }
}

/* Cross features, standardised and clipped, and user + item halves of sixteen candidates, one a lane. */
__attribute__((target("avx512f"))) static void lay_out(const Ranker *r, size_t first, float *features, float *halves) {
    size_t inputs = (size_t)r->sizes[0], width = (size_t)r->sizes[1];
    float line[LANES * WIDEST];
    int32_t at[LANES], half_at[LANES];
    for (size_t lane = 0; lane < LANES; lane++) {
        size_t c = first + lane < r->count ? first + lane : r->count - 1; /* beyond the end: the last once more */
        const uint16_t *row = r->halves + (size_t)r->rows[c] * width;
        for (size_t d = 0; d < width; d += 16) {
            __m512 item = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + d)));
            _mm512_storeu_ps(line + lane * width + d, _mm512_add_ps(_mm512_loadu_ps(r->user + d), item));
        }
        at[lane] = (int32_t)((c - first) * inputs), half_at[lane] = (int32_t)(lane * width);
        if (first + 2 * LANES + lane < r->count)
            for (size_t d = 0; d < width; d += 32) __builtin_prefetch(r->halves + (size_t)r->rows[first + 2 * LANES + lane] * width + d);
    }
    __m512i places = _mm512_loadu_si512(at), half_places = _mm512_loadu_si512(half_at);
    __m512 high = _mm512_set1_ps(r->clip), low = _mm512_set1_ps(-r->clip);
    for (size_t f = 0; f < inputs; f++) {
        __m512 value = _mm512_i32gather_ps(places, r->cross + first * inputs + f, 4);
        value = _mm512_mul_ps(_mm512_sub_ps(value, _mm512_set1_ps(r->mean[f])), _mm512_set1_ps(r->scale[f]));
        _mm512_storeu_ps(features + f * LANES, _mm512_min_ps(_mm512_max_ps(value, low), high));
    }
    for (size_t d = 0; d < width; d++) _mm512_storeu_ps(halves + d * LANES, _mm512_i32gather_ps(half_places, line + d, 4));
}

__attribute__((target("avx512f"))) static void judge(const Ranker *r, float *out) {
    float features[LANES * WIDEST], one[LANES * WIDEST], other[LANES * WIDEST];
    size_t last = (size_t)r->sizes[r->layers];
    for (size_t first = 0; first < r->count; first += LANES) {
        float *in = one, *next = other;
        lay_out(r, first, features, one);
        Layer now = {r->weights, NULL, one, (size_t)r->sizes[0], (size_t)r->sizes[1], 1};
        layer(&now, features, one);
        const float *weights = r->weights + now.inputs * now.outputs;
        for (size_t l = 1; l < r->layers; l++) {
            size_t inputs = (size_t)r->sizes[l], outputs = (size_t)r->sizes[l + 1];
            now = (Layer){weights, weights + inputs * outputs, NULL, inputs, outputs, l + 1 < r->layers};
            layer(&now, in, next);
            weights += inputs * outputs + outputs;
            float *swap = in;
            in = next, next = swap;
        }
        for (size_t lane = 0; lane < LANES && first + lane < r->count; lane++)
            for (size_t n = 0; n < last; n++) out[(first + lane) * last + n] = in[n * LANES + lane];
    }
}

static int sound(const Ranker *r, const Py_buffer *v, size_t items) {
    size_t expected = 0;
    if (r->layers < 1 || r->layers > MOST_LAYERS) return 0;
    for (size_t l = 0; l <= r->layers; l++)
        if (r->sizes[l] < 1 || r->sizes[l] > WIDEST) return 0;
    for (size_t l = 0; l < r->layers; l++) expected += (size_t)(r->sizes[l] * r->sizes[l + 1]) + (l ? (size_t)r->sizes[l + 1] : 0);
    size_t inputs = (size_t)r->sizes[0], width = (size_t)r->sizes[1];
    if (width % 16 || (size_t)v[2].len != width * 4 || (size_t)v[3].len != r->count * inputs * 4 || (size_t)v[4].len != inputs * 4 ||
        (size_t)v[5].len != inputs * 4 || (size_t)v[6].len != expected * 4 || (size_t)v[8].len != r->count * (size_t)r->sizes[r->layers] * 4)
        return 0;
    for (size_t c = 0; c < r->count; c++)
        if (r->rows[c] < 0 || (size_t)r->rows[c] >= items) return 0;
    return 1;
}
#endif

/* judge(halves float16 (I, H), rows int32 (C,), user float32 (H,), cross float32 (C, Fx), mean float32 (Fx,), scale float32 (Fx,), clip,
 *       weights float32, sizes int64, out float32 (C, n)) -> whether it was done */
PyObject *py_judge(PyObject *self, PyObject *args) {
    Py_buffer v[9] = {{0}};
    float clip;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*fy*y*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &clip, &v[6], &v[7], &v[8])) return NULL;
    int done = 0, wrong = 0;
#ifdef X86
    if (__builtin_cpu_supports("avx512f")) {
        Ranker r = {v[0].buf, v[1].buf, v[2].buf, v[3].buf, v[4].buf, v[5].buf, v[6].buf, v[7].buf, clip, (size_t)v[1].len / 4, (size_t)v[7].len / 8 - 1};
        wrong = v[7].len < 16 || !sound(&r, v, (size_t)v[0].len / 2 / (size_t)(r.sizes[1] > 0 ? r.sizes[1] : 1));
        if (!wrong) judge(&r, v[8].buf), done = 1;
    }
#endif
    give_back((Given){v, 9});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected rows, halves, features and weights of one ranker");
    return PyBool_FromLong(done);
}
