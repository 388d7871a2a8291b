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
 *       out float32 (M,)) -> how many rows had a vote */
PyObject *py_votes(PyObject *self, PyObject *args) {
    Py_buffer v[7] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6])) return NULL;
    size_t asked = (size_t)v[4].len / 4, known = (size_t)v[3].len / 4, size = (size_t)v[6].len / 4, entries = (size_t)v[1].len / 2, voters = 0;
    Votes t = {v[0].buf, v[1].buf, size, size ? entries / size : 0, entries ? (size_t)v[0].len / entries : 2};
    const int32_t *at = v[3].buf, *rows = v[4].buf;
    const char *problem = NULL;
    double *sums = kept_memory(KEPT_SUMS, (size + 1) * 8);
    Scored *voter = kept_memory(KEPT_FOUND, (asked + 1) * sizeof(Scored));
    if (v[5].len != v[4].len || v[2].len != v[6].len) problem = "expected an interest for every row, and a scale for every voter";
    else if (t.entry != 2 && t.entry != 4) problem = "expected neighbours of 2 or 4 bytes";
    else if (size == 0 || entries % size) problem = "expected the same number of neighbours for every row";
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
        for (size_t m = 0; m < size; m++) ((float *)v[6].buf)[m] = (float)sums[m];
    }
    give_back((Given){v, 7});
    if (!sums || !voter) return NULL;
    if (problem) return PyErr_Format(PyExc_ValueError, "%s", problem);
    return PyLong_FromSize_t(voters);
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

/* tally(codes int32 (I, G), rows int32 (H,), weights float32 (H,), size, touched int32 (H G,) out, sums float64 (H G,) out) -> how many codes
 * below `size` had a weight: each once, with the sum of its weights */
PyObject *py_tally(PyObject *self, PyObject *args) {
    Py_buffer v[5] = {{0}};
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y*y*y*nw*w*", &v[0], &v[1], &v[2], &size, &v[3], &v[4])) return NULL;
    size_t count = (size_t)v[1].len / 4, room = (size_t)v[3].len / 4, groups = count ? room / count : 1, items = (size_t)v[0].len / 4 / (groups ? groups : 1), touched = 0;
    const int32_t *codes = v[0].buf, *rows = v[1].buf;
    double *sums = size < 0 ? NULL : kept_zeros(KEPT_TABLE, ((size_t)size + 1) * 8);
    int wrong = !sums || !groups || room != count * groups || (size_t)v[4].len != room * 8 || v[2].len != v[1].len;
    for (size_t h = 0; h < count && !wrong; h++) wrong = rows[h] < 0 || (size_t)rows[h] >= items;
    for (size_t h = 0; h < count && !wrong; h++)
        for (size_t g = 0; g < groups; g++) {
            int32_t code = codes[(size_t)rows[h] * groups + g];
            float weight = ((const float *)v[2].buf)[h];
            if (code < 0 || code >= size || !(weight > 0)) continue;
            if (sums[code] == 0) ((int32_t *)v[3].buf)[touched++] = code;
            sums[code] += (double)weight;
        }
    for (size_t i = 0; i < touched; i++) {
        int32_t code = ((int32_t *)v[3].buf)[i];
        ((double *)v[4].buf)[i] = sums[code], sums[code] = 0;
    }
    give_back((Given){v, 5});
    if (wrong) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "expected %zu rows of a table of codes, with a weight each", count);
    return PyLong_FromSize_t(touched);
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

/* lifted(worth float32 (A,), first kinds uint16 (A,), their codes int32 (g, K), K, second kinds, codes, K, lifts float32 (N,), out float32 (A,)) */
PyObject *py_lifted(PyObject *self, PyObject *args) {
    Py_buffer v[7] = {{0}};
    Py_ssize_t kinds[2];
    if (!PyArg_ParseTuple(args, "y*y*y*ny*y*ny*w*", &v[0], &v[1], &v[2], &kinds[0], &v[3], &v[4], &kinds[1], &v[5], &v[6])) return NULL;
    size_t offers = (size_t)v[6].len / 4, all = (size_t)v[5].len / 4;
    int wrong = (size_t)v[0].len != offers * 4 || (size_t)v[1].len != offers * 2 || (size_t)v[3].len != offers * 2 || kinds[0] < 1 || kinds[1] < 1;
    float *lifts = wrong ? NULL : kept_memory(KEPT_KINDS, (size_t)(kinds[0] + kinds[1]) * 4);
    if (lifts) {
        wrong = !kind_lifts(v[2].buf, (size_t)v[2].len / 4, (size_t)kinds[0], v[5].buf, all, lifts) ||
                !kind_lifts(v[4].buf, (size_t)v[4].len / 4, (size_t)kinds[1], v[5].buf, all, lifts + kinds[0]) ||
                lacks(v[1].buf, offers, (size_t)kinds[0]) || lacks(v[3].buf, offers, (size_t)kinds[1]);
        if (!wrong) lift_all(v[0].buf, v[1].buf, lifts, v[3].buf, lifts + kinds[0], offers, v[6].buf);
    }
    give_back((Given){v, 7});
    if (!lifts && !wrong) return NULL;
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected %zu worths and kinds, each kind with codes that have a lift", offers);
    Py_RETURN_NONE;
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
