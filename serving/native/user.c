/* The user's side of all models (serving/ranking/user_side.py): features standardised, two layers of both rankers, the user tower.
 *
 * Every sum runs over its inputs in order, by fused multiply-adds, and adds the bias last, as ONNX Runtime's products of one row do on this
 * kind of CPU; whether they do is tried out when a bundle is loaded. Without AVX2 and FMA there is no loop here, and the graph runs.
 */
#include "kernel.h"

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

int sides_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

void user_side(const Standard *s, const UserLayers *l, const float *features, size_t given, const float *bag, float *halves, float *vector) {
    float inputs[WIDEST_SIDE], one[WIDEST_SIDE], other[WIDEST_SIDE];
    standardise(s, features, given, inputs);
    layer(inputs, 3 * s->width, l->first, l->bias, l->all, one);
    bend(one + l->halves, l->all - l->halves);
    layer(one + l->halves, l->all - l->halves, l->second, one, l->halves, halves);
    if (!l->dimensions) return;
    layer(inputs + 3 * s->width, s->own, l->own, l->own_bias, l->hidden, one);
    bend(one, l->hidden);
    layer(one, l->hidden, l->top, l->top_bias, l->dimensions, other);
    layer(bag, l->dimensions, l->bag, NULL, l->dimensions, vector);
    for (size_t d = 0; d < l->dimensions; d++) vector[d] += other[d];
    to_length_one(vector, l->dimensions, other);
}
#else
int sides_here(void) { return 0; }
void user_side(const Standard *s, const UserLayers *l, const float *features, size_t given, const float *bag, float *halves, float *vector) {}
#endif
