/* The user's side of all models (serving/ranking/user_side.py): features standardised, two layers of both rankers, the user tower.
 *
 * Every sum runs over its inputs in order, by fused multiply-adds, and adds the bias last, as ONNX Runtime's products of one row do on this
 * kind of CPU; whether they do is tried out when a bundle is loaded. Without AVX2 and FMA there is no loop here, and the graph runs.
 */
#include "kernel.h"

enum { WIDEST = 2048 };

typedef struct {
    const float *mean, *scale, *log_mean, *log_scale, *own_mean, *own_spread;
    size_t width, own;
    float clip;
} Standard;

static inline float clipped(float value, float clip) {
    value = value < -clip ? -clip : value;
    return value > clip ? clip : value;
}

/* Plain, logarithms, missing, the user's own: (3 Fr + Fu,). */
static void standardise(const Standard *s, const float *features, size_t given, float *out) {
    float *plain = out, *logged = out + s->width, *absent = out + 2 * s->width, *own = out + 3 * s->width;
    for (size_t f = 0; f < s->width; f++) {
        float value = f < given ? features[f] : NAN, known = isnan(value) ? s->mean[f] : value;
        absent[f] = isnan(value) ? 1.0f : 0.0f;
        plain[f] = clipped((known - s->mean[f]) * s->scale[f], s->clip);
        logged[f] = fabsf(known) + 1.0f;
        if (f + s->own >= s->width) {
            size_t o = f + s->own - s->width;
            own[o] = isnan(value) ? 0.0f : (value - s->own_mean[o]) / s->own_spread[o];
        }
    }
    logs(logged, s->width);
    for (size_t f = 0; f < s->width; f++) {
        float value = f < given ? features[f] : NAN, known = isnan(value) ? s->mean[f] : value, sign = known > 0 ? 1.0f : known < 0 ? -1.0f : 0.0f;
        logged[f] = clipped((sign * logged[f] - s->log_mean[f]) * s->log_scale[f], s->clip) * (1.0f - absent[f]);
    }
}

#ifdef X86
/* out[n] = sum over k of in[k] * weights[k][n], + bias[n] where there is one */
__attribute__((target("avx2,fma"))) static void layer(const float *in, size_t inputs, const float *weights, const float *bias, size_t outputs, float *out) {
    size_t n = 0;
    for (; n + 64 <= outputs; n += 64) {
        __m256 sums[8];
        for (int i = 0; i < 8; i++) sums[i] = _mm256_setzero_ps();
        for (size_t k = 0; k < inputs; k++) {
            __m256 value = _mm256_set1_ps(in[k]);
            const float *line = weights + k * outputs + n;
            for (int i = 0; i < 8; i++) sums[i] = _mm256_fmadd_ps(value, _mm256_loadu_ps(line + 8 * i), sums[i]);
        }
        for (int i = 0; i < 8; i++) _mm256_storeu_ps(out + n + 8 * i, bias ? _mm256_add_ps(sums[i], _mm256_loadu_ps(bias + n + 8 * i)) : sums[i]);
    }
    for (; n < outputs; n++) {
        float sum = 0;
        for (size_t k = 0; k < inputs; k++) sum = __builtin_fmaf(in[k], weights[k * outputs + n], sum);
        out[n] = bias ? sum + bias[n] : sum;
    }
}

static void bend(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = values[i] > 0 ? values[i] : 0;
}

static void to_length_one(float *vector, size_t width, float *room) {
    for (size_t d = 0; d < width; d++) room[d] = vector[d] * vector[d];
    float length = sqrtf(sum_of(room, width));
    for (size_t d = 0; d < width; d++) vector[d] /= length > 1e-12f ? length : 1e-12f;
}
#endif

/* user_side(features float32 (<= Fr,), mean, scale, log mean, log scale float32 (Fr,), own mean, own spread float32 (Fu,), clip,
 *           bag float32 (D,) or None, first float32 (3 Fr, H + H'), bias (H + H',), second (H', H), own (Fu, h), own bias (h,), top (h, D),
 *           top bias (D,), bag's (D, D), halves float32 (H,) out, vector float32 (D,) out) -> whether it was done */
PyObject *py_user_side(PyObject *self, PyObject *args) {
    enum { FEATURES, MEAN, SCALE, LOG_MEAN, LOG_SCALE, OWN_MEAN, OWN_SPREAD, BAG, FIRST, BIAS, SECOND, OWN, OWN_BIAS, TOP, TOP_BIAS, BAGS, HALVES, VECTOR, ALL };
    Py_buffer v[ALL] = {{0}};
    float clip;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*fz*y*y*y*y*y*y*y*y*w*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &clip, &v[7], &v[8], &v[9], &v[10], &v[11], &v[12],
                          &v[13], &v[14], &v[15], &v[16], &v[17])) return NULL;
    size_t width = (size_t)v[MEAN].len / 4, own = (size_t)v[OWN_MEAN].len / 4, given = (size_t)v[FEATURES].len / 4, all = (size_t)v[BIAS].len / 4, halves = (size_t)v[HALVES].len / 4;
    size_t bent = all - halves, hidden = (size_t)v[OWN_BIAS].len / 4, dimensions = (size_t)v[VECTOR].len / 4;
    int sound = given <= width && v[SCALE].len == v[MEAN].len && v[LOG_MEAN].len == v[MEAN].len && v[LOG_SCALE].len == v[MEAN].len && v[OWN_SPREAD].len == v[OWN_MEAN].len &&
                own <= width && halves <= all && (size_t)v[FIRST].len == 3 * width * all * 4 && (size_t)v[SECOND].len == bent * halves * 4 &&
                (size_t)v[OWN].len == own * hidden * 4 && (size_t)v[TOP].len == hidden * dimensions * 4 && (size_t)v[TOP_BIAS].len == dimensions * 4 &&
                (size_t)v[BAGS].len == dimensions * dimensions * 4 && (!dimensions || (size_t)v[BAG].len == dimensions * 4) && 4 * width <= WIDEST && all <= WIDEST &&
                hidden <= WIDEST && dimensions <= WIDEST;
    int done = 0;
#ifdef X86
    if (sound && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        Standard s = {v[MEAN].buf, v[SCALE].buf, v[LOG_MEAN].buf, v[LOG_SCALE].buf, v[OWN_MEAN].buf, v[OWN_SPREAD].buf, width, own, clip};
        float inputs[WIDEST], one[WIDEST], other[WIDEST], *vector = v[VECTOR].buf;
        standardise(&s, v[FEATURES].buf, given, inputs);
        layer(inputs, 3 * width, v[FIRST].buf, v[BIAS].buf, all, one);
        bend(one + halves, bent);
        layer(one + halves, bent, v[SECOND].buf, one, halves, v[HALVES].buf);
        if (dimensions) {
            layer(inputs + 3 * width, own, v[OWN].buf, v[OWN_BIAS].buf, hidden, one);
            bend(one, hidden);
            layer(one, hidden, v[TOP].buf, v[TOP_BIAS].buf, dimensions, other);
            layer(v[BAG].buf, dimensions, v[BAGS].buf, NULL, dimensions, vector);
            for (size_t d = 0; d < dimensions; d++) vector[d] += other[d];
            to_length_one(vector, dimensions, other);
        }
        done = 1;
    }
#endif
    give_back((Given){v, ALL});
    if (!sound) return PyErr_Format(PyExc_ValueError, "expected at most %zu features, and weights of one user side", width);
    return PyBool_FromLong(done);
}
