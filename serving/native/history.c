/* A user's history on the rows of a bundle (serving/query.py): resolved, sorted by row, aged to the request's moment. */
#include "kernel.h"

enum { EXACT_ROWS = 1 << 24 }; /* integers a float holds exactly: rows are sorted as floats */

typedef struct {
    const uint64_t *keys;
    const int32_t *rows;
    size_t items;
} Index;

/* The row of a key, -1 where there is none. Keys are hashes: where a key would be among evenly spread ones is near to where it is. */
static int32_t row_of(Index index, uint64_t key) {
    const uint64_t *sorted = index.keys;
    size_t guess = (size_t)(((unsigned __int128)key * index.items) >> 64), low = 0, high = index.items, step = 16;
    if (!index.items) return -1;
    if (sorted[guess] < key) {
        for (low = guess + 1; low + step < index.items && sorted[low + step] < key; step *= 2) low += step;
        high = low + step < index.items ? low + step : index.items;
    } else {
        for (high = guess; high > step && sorted[high - step] >= key; step *= 2) high -= step;
        low = high > step ? high - step : 0;
    }
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sorted[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low < index.items && sorted[low] == key ? index.rows[low] : -1;
}

/* resolve(sorted keys uint64 (I,), their rows int32 (I,), keys uint64 (H,), out int32 (H,)) */
PyObject *py_resolve(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    Index index = {v[0].buf, v[1].buf, (size_t)v[0].len / 8};
    size_t count = (size_t)v[2].len / 8;
    int wrong = (size_t)v[1].len != index.items * 4 || (size_t)v[3].len != count * 4;
    for (size_t h = 0; h < count && !wrong; h++) ((int32_t *)v[3].buf)[h] = row_of(index, ((const uint64_t *)v[2].buf)[h]);
    give_back((Given){v, 4});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected a row for each of %zu keys, and room for %zu", index.items, count);
    Py_RETURN_NONE;
}

/* recall(sorted keys, their rows, keys uint64 (H,), last day float64 (H,), first day float64 (H,), counts float32 (H,), decayed float32 (H, T),
 *        taus float64 (T,), day, rows int32 (H,) out, order int64 (H,) out, counts, age, span float32 (H,) out,
 *        decayed float32 (T H,) out, exponents float64 (T H,) out) -> how many are known; what is said of them stands first in each */
PyObject *py_recall(PyObject *self, PyObject *args) {
    enum { KEYS, ROWS, ASKED, LAST, FIRST, COUNTS, DECAYED, TAUS, OUT_ROWS, OUT_ORDER, OUT_COUNTS, OUT_AGE, OUT_SPAN, OUT_DECAYED, OUT_EXPONENTS, ALL };
    Py_buffer v[ALL] = {{0}};
    double day;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*dw*w*w*w*w*w*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &day, &v[8], &v[9], &v[10], &v[11], &v[12], &v[13], &v[14]))
        return NULL;
    Index index = {v[KEYS].buf, v[ROWS].buf, (size_t)v[KEYS].len / 8};
    size_t count = (size_t)v[ASKED].len / 8, taus = (size_t)v[TAUS].len / 8, known = 0;
    int wrong = (size_t)v[ROWS].len != index.items * 4 || index.items >= EXACT_ROWS || (size_t)v[LAST].len != count * 8 || (size_t)v[FIRST].len != count * 8 ||
                (size_t)v[COUNTS].len != count * 4 || (size_t)v[DECAYED].len != count * taus * 4 || (size_t)v[OUT_ROWS].len != count * 4 ||
                (size_t)v[OUT_ORDER].len != count * 8 || (size_t)v[OUT_COUNTS].len != count * 4 || (size_t)v[OUT_AGE].len != count * 4 ||
                (size_t)v[OUT_SPAN].len != count * 4 || (size_t)v[OUT_DECAYED].len != count * taus * 4 || (size_t)v[OUT_EXPONENTS].len != count * taus * 8;
    Scored *found = kept_memory(KEPT_FOUND, (count + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (count + 1) * sizeof(Scored));
    if (!wrong && found && spare) {
        const double *last = v[LAST].buf, *first = v[FIRST].buf, *tau = v[TAUS].buf;
        for (size_t h = 0; h < count; h++) {
            int32_t row = row_of(index, ((const uint64_t *)v[ASKED].buf)[h]);
            if (row >= 0) found[known++] = (Scored){(float)-row, (int32_t)h};
        }
        Scored *sorted = falling(found, spare, known);
        for (size_t i = 0; i < known; i++) {
            size_t h = (size_t)sorted[i].at;
            double age = day - last[h] > 0 ? day - last[h] : 0;
            ((int32_t *)v[OUT_ROWS].buf)[i] = (int32_t)-sorted[i].score, ((int64_t *)v[OUT_ORDER].buf)[i] = (int64_t)h;
            ((float *)v[OUT_COUNTS].buf)[i] = ((const float *)v[COUNTS].buf)[h];
            ((float *)v[OUT_AGE].buf)[i] = (float)age, ((float *)v[OUT_SPAN].buf)[i] = (float)(last[h] - first[h]);
            for (size_t t = 0; t < taus; t++) {
                ((float *)v[OUT_DECAYED].buf)[t * known + i] = ((const float *)v[DECAYED].buf)[h * taus + t];
                ((double *)v[OUT_EXPONENTS].buf)[t * known + i] = -age / tau[t];
            }
        }
    }
    give_back((Given){v, ALL});
    if (!found || !spare) return NULL;
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected %zu keys with what is said of each, and fewer than %d items", count, EXACT_ROWS);
    return PyLong_FromSize_t(known);
}
