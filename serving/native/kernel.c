/* The hot loops of a request in C, with the same results to the bit as numpy beside its callers
 * (serving/scan.py, serving/sources/linear.py).
 *
 * Nothing here is floating point that numpy would round otherwise: dot products are of integers, sums run in the same order and the same
 * precision, and the file is compiled without contraction of a * b + c. The scan is chosen at run time by what the CPU can do.
 * Selecting the best n is not here: numpy does it as fast. Shapes: I items, D dimensions, M items with neighbours, K neighbours, H voters.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define X86 1
#endif

/* ---- dot products of int8 rows with one int8 vector ---- */

typedef void (*dots_fn)(const int8_t *table, const int8_t *vector, Py_ssize_t items, Py_ssize_t width, float *out);

static void dots_plain(const int8_t *table, const int8_t *vector, Py_ssize_t items, Py_ssize_t width, float *out) {
    for (Py_ssize_t i = 0; i < items; i++) {
        const int8_t *row = table + i * width;
        int32_t sum = 0;
        for (Py_ssize_t d = 0; d < width; d++) sum += (int32_t)row[d] * vector[d];
        out[i] = (float)sum;
    }
}

#ifdef X86
__attribute__((target("avx2"))) static int32_t total256(__m256i sum) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

/* width is a multiple of 16 */
__attribute__((target("avx2"))) static void dots_avx2(const int8_t *table, const int8_t *vector, Py_ssize_t items, Py_ssize_t width, float *out) {
    for (Py_ssize_t i = 0; i < items; i++) {
        const int8_t *row = table + i * width;
        __m256i sum = _mm256_setzero_si256();
        for (Py_ssize_t d = 0; d < width; d += 16) {
            __m256i a = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(row + d)));
            __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(vector + d)));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
        }
        out[i] = (float)total256(sum);
    }
}

/* width is 64: one row is one register. dpbusd wants one side unsigned: (v + 128) . t - 128 * sum(t). */
__attribute__((target("avx512f,avx512bw,avx512vnni,avx2"))) static void dots_vnni64(
    const int8_t *table, const int8_t *vector, Py_ssize_t items, Py_ssize_t width, float *out) {
    __m512i shifted = _mm512_xor_si512(_mm512_loadu_si512(vector), _mm512_set1_epi8((char)0x80)); /* v + 128, unsigned */
    __m512i offset = _mm512_set1_epi8((char)0x80);                                              /* 128, unsigned */
    for (Py_ssize_t i = 0; i < items; i++) {
        __m512i row = _mm512_loadu_si512(table + i * width);
        __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), shifted, row);
        __m512i extra = _mm512_dpbusd_epi32(_mm512_setzero_si512(), offset, row);
        out[i] = (float)_mm512_reduce_add_epi32(_mm512_sub_epi32(sum, extra));
    }
}
#endif

static dots_fn choose_dots(Py_ssize_t width, const char **name) {
#ifdef X86
    __builtin_cpu_init();
    if (width == 64 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) return *name = "vnni", dots_vnni64;
    if (width % 16 == 0 && __builtin_cpu_supports("avx2")) return *name = "avx2", dots_avx2;
#endif
    return *name = "plain", dots_plain;
}

static PyObject *py_dots(PyObject *self, PyObject *args) {
    Py_buffer table, vector, out;
    if (!PyArg_ParseTuple(args, "y*y*w*", &table, &vector, &out)) return NULL;
    Py_ssize_t width = vector.len, items = out.len / (Py_ssize_t)sizeof(float);
    int wrong = table.len != items * width;
    if (!wrong) {
        const char *name;
        dots_fn run = choose_dots(width, &name);
        Py_BEGIN_ALLOW_THREADS
        run(table.buf, vector.buf, items, width, out.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&table), PyBuffer_Release(&vector), PyBuffer_Release(&out);
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected a table of %zd x %zd bytes", items, width);
    Py_RETURN_NONE;
}

/* ---- votes of history items for their neighbours ---- */

static PyObject *py_votes(PyObject *self, PyObject *args) {
    Py_buffer neighbours, weights, found, strengths, out;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &neighbours, &weights, &found, &strengths, &out)) return NULL;
    Py_ssize_t voters = found.len / 4, size = out.len / 8;
    Py_ssize_t entry = weights.len ? neighbours.len / (weights.len / 2) : 2; /* bytes of a neighbour: uint16 or int32 */
    const char *problem = NULL;
    if (strengths.len != found.len) problem = "expected a strength for every voter";
    else if (entry != 2 && entry != 4) problem = "expected neighbours of 2 or 4 bytes";
    else if (size == 0 || (weights.len / 2) % size) problem = "expected the same number of neighbours for every row";
    else {
        Py_ssize_t k = weights.len / 2 / size;
        const int16_t *w = weights.buf;
        const int32_t *rows = found.buf;
        const float *strength = strengths.buf;
        double *sums = out.buf;
        memset(sums, 0, out.len);
        for (Py_ssize_t h = 0; h < voters && !problem; h++)
            if (rows[h] < 0 || rows[h] >= size) problem = "a voter is outside of the table";
        for (Py_ssize_t h = 0; h < voters && !problem; h++) {
            const int16_t *line = w + (Py_ssize_t)rows[h] * k;
            if (entry == 2) {
                const uint16_t *to = (const uint16_t *)neighbours.buf + (Py_ssize_t)rows[h] * k;
                for (Py_ssize_t j = 0; j < k; j++) {
                    if (to[j] >= size) { problem = "a neighbour is outside of the table"; break; }
                    sums[to[j]] += (double)((float)line[j] * strength[h]);
                }
            } else {
                const int32_t *to = (const int32_t *)neighbours.buf + (Py_ssize_t)rows[h] * k;
                for (Py_ssize_t j = 0; j < k; j++) {
                    if (to[j] < 0 || to[j] >= size) { problem = "a neighbour is outside of the table"; break; }
                    sums[to[j]] += (double)((float)line[j] * strength[h]);
                }
            }
        }
    }
    PyBuffer_Release(&neighbours), PyBuffer_Release(&weights), PyBuffer_Release(&found);
    PyBuffer_Release(&strengths), PyBuffer_Release(&out);
    if (problem) return PyErr_Format(PyExc_ValueError, "%s", problem);
    Py_RETURN_NONE;
}

static PyObject *py_instructions(PyObject *self, PyObject *args) {
    Py_ssize_t width;
    if (!PyArg_ParseTuple(args, "n", &width)) return NULL;
    const char *name;
    choose_dots(width, &name);
    return PyUnicode_FromString(name);
}

static PyMethodDef methods[] = {
    {"dots", py_dots, METH_VARARGS, "dots(table int8 (I, D), vector int8 (D,), out float32 (I,)): exact integer dot products."},
    {"votes", py_votes, METH_VARARGS, "votes(neighbours (M, K), weights int16 (M, K), voters int32 (H,), strengths float32 (H,), out float64 (M,))."},
    {"instructions", py_instructions, METH_VARARGS, "instructions(width) -> name of the scan this CPU gets."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "serving.native._kernel", "Hot loops of a request.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&module); }
