/* One pool from the lists of the sources (serving/fusion.py). */
#include "kernel.h"

typedef struct {
    const int32_t *rows, *promised, *history;
    const int64_t *ends;
    const float *weights, *offsets;
    size_t listed, sources, had, items, pool;
} Lists;

typedef struct {
    int32_t *rows;
    float *fused, *ranks;
    uint8_t *seen;
} Pool;

/* Distinct items in the order of their first place, each with its fused score. `slots` holds the position + 1 of every item met. */
static size_t gather(const Lists *lists, int32_t *slots, Scored *found, double *sums, uint8_t *kept) {
    size_t distinct = 0, begin = 0;
    for (size_t s = 0; s < lists->sources; s++) {
        size_t end = (size_t)lists->ends[s];
        for (size_t j = begin; j < end; j++) {
            int32_t slot = slots[lists->rows[j]];
            if (!slot) {
                slot = slots[lists->rows[j]] = (int32_t)++distinct;
                sums[slot - 1] = 0, kept[slot - 1] = 0, found[slot - 1].at = (int32_t)j;
            }
            sums[slot - 1] += (double)(lists->weights[s] / ((float)(j - begin) + lists->offsets[s]));
            if (j - begin < (size_t)lists->promised[s]) kept[slot - 1] = 1;
        }
        begin = end;
    }
    for (size_t m = 0; m < distinct; m++) found[m].score = (float)sums[m];
    return distinct;
}

static size_t fill(const Lists *lists, int32_t *slots, Scored *found, Scored *spare, double *sums, uint8_t *kept, Pool out) {
    size_t distinct = gather(lists, slots, found, sums, kept), promised = 0, count = 0;
    for (size_t m = 0; m < distinct; m++) promised += kept[m];
    size_t room = distinct <= lists->pool ? distinct : lists->pool > promised ? lists->pool - promised : 0;
    Scored *order = falling(found, spare, distinct);
    for (size_t m = 0; m < distinct; m++) {
        int32_t row = lists->rows[order[m].at], slot = slots[row];
        slots[row] = 0;
        if (!kept[slot - 1] && !room) continue;
        if (!kept[slot - 1]) room--;
        out.rows[count] = row, out.fused[count] = order[m].score, out.seen[count] = 0;
        count++;
    }
    for (size_t c = 0; c < count; c++) slots[out.rows[c]] = (int32_t)c + 1;
    for (size_t i = 0; i < count * lists->sources; i++) out.ranks[i] = INFINITY;
    for (size_t s = 0, begin = 0; s < lists->sources; begin = (size_t)lists->ends[s++])
        for (size_t j = begin; j < (size_t)lists->ends[s]; j++) {
            int32_t slot = slots[lists->rows[j]];
            if (slot) out.ranks[(size_t)(slot - 1) * lists->sources + s] = (float)(j - begin);
        }
    for (size_t h = 0; h < lists->had; h++) {
        int32_t slot = slots[lists->history[h]];
        if (slot) out.seen[slot - 1] = 1;
    }
    for (size_t c = 0; c < count; c++) slots[out.rows[c]] = 0;
    return count;
}

static int beyond(const int32_t *rows, size_t count, size_t items) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= rows[i] < 0 || (size_t)rows[i] >= items;
    return wrong;
}

/* One source's column of scores: its values by position, or only what it listed. `given`: (scores, values or None, positions or None). */
static int read_column(PyObject *given, size_t s, size_t sources, Pool pool, size_t count, float *scores) {
    Py_buffer v[3] = {{0}};
    if (!PyArg_ParseTuple(given, "y*z*z*", &v[0], &v[1], &v[2])) return -1;
    size_t listed = (size_t)v[0].len / 4, values = (size_t)v[1].len / 4, known = v[2].buf ? (size_t)v[2].len / 4 : values;
    const float *list = v[0].buf, *value = v[1].buf;
    const int32_t *at = v[2].buf;
    for (size_t c = 0; c < count; c++) {
        float score = 0, rank = pool.ranks[c * sources + s];
        size_t row = (size_t)pool.rows[c];
        if (!value) {
            if (isfinite(rank) && (size_t)rank < listed) score = list[(size_t)rank];
        } else if (row < known) {
            size_t place = at ? (size_t)at[row] : row; /* -1 is beyond all of them */
            if (place < values) score = value[place];
        }
        scores[c * sources + s] = score;
    }
    give_back((Given){v, 3});
    return 0;
}

/* fuse(rows int32 (L,), ends int64 (S,), weights float32 (S,), offsets float32 (S,), promised int32 (S,), history int32 (H,), items, pool,
 *      sources (S) as `read_column` takes them, rows int32 (L,) out, fused float32 (L,) out, ranks float32 (L, S) out, scores float32 (L, S) out,
 *      seen uint8 (L,) out) -> size of the pool */
PyObject *py_fuse(PyObject *self, PyObject *args) {
    Py_buffer v[11] = {{0}};
    Py_ssize_t items, pool;
    PyObject *given;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*nnO!w*w*w*w*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &items, &pool, &PyTuple_Type, &given, &v[6], &v[7], &v[8], &v[9], &v[10]))
        return NULL;
    Lists lists = {v[0].buf, v[4].buf, v[5].buf, v[1].buf, v[2].buf, v[3].buf, (size_t)v[0].len / 4, (size_t)v[1].len / 8, (size_t)v[5].len / 4, (size_t)items, (size_t)pool};
    Pool out = {v[6].buf, v[7].buf, v[8].buf, v[10].buf};
    size_t listed = lists.listed, sources = lists.sources;
    int wrong = v[2].len != (Py_ssize_t)sources * 4 || v[3].len != v[2].len || v[4].len != v[2].len || v[6].len != v[0].len || v[7].len != v[0].len ||
                v[8].len != v[0].len * (Py_ssize_t)sources || v[9].len != v[8].len || v[10].len != (Py_ssize_t)listed || items < 0 || pool < 0 ||
                (size_t)PyTuple_GET_SIZE(given) != sources;
    for (size_t s = 0; s < sources && !wrong; s++) wrong |= lists.ends[s] < (s ? lists.ends[s - 1] : 0) || (size_t)lists.ends[s] > listed;
    wrong = wrong || beyond(lists.rows, listed, lists.items) || beyond(lists.history, lists.had, lists.items);
    Py_ssize_t count = -1;
    if (wrong) {
        PyErr_Format(PyExc_ValueError, "expected lists of rows below %zd, one after the other, and room for all of them", items);
    } else {
        int32_t *slots = kept_zeros(KEPT_SLOTS, ((size_t)items + 1) * 4);
        Scored *found = kept_memory(KEPT_FOUND, (listed + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (listed + 1) * sizeof(Scored));
        double *sums = kept_memory(KEPT_SUMS, (listed + 1) * 8);
        uint8_t *kept = kept_memory(KEPT_KINDS, listed + 1);
        if (slots && found && spare && sums && kept) count = (Py_ssize_t)fill(&lists, slots, found, spare, sums, kept, out);
        for (size_t s = 0; s < sources && count >= 0; s++)
            if (read_column(PyTuple_GET_ITEM(given, s), s, sources, out, (size_t)count, v[9].buf) < 0) count = -1;
    }
    give_back((Given){v, 11});
    return count < 0 ? NULL : PyLong_FromSsize_t(count);
}

/* merge(light float32 (C,), order int32 (C,), heavy float32 (K,), head int32 (K,), rows int32 (C,), seen uint8 (C,),
 *       rows int32 (C,) out, scores float32 (C,) out, seen uint8 (C,) out): the first K of the light order in the order `head` of their heavy scores,
 *       the others after them, no score above the last heavy one */
PyObject *py_merge(PyObject *self, PyObject *args) {
    Py_buffer v[9] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*w*w*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8])) return NULL;
    size_t count = (size_t)v[0].len / 4, kept = (size_t)v[2].len / 4;
    const float *light = v[0].buf, *heavy = v[2].buf;
    const int32_t *order = v[1].buf, *head = v[3].buf;
    int wrong = v[1].len != v[0].len || v[3].len != v[2].len || kept > count || v[4].len != v[0].len || (size_t)v[5].len != count || v[6].len != v[0].len ||
                v[7].len != v[0].len || (size_t)v[8].len != count || beyond(order, count, count) || beyond(head, kept, kept);
    for (size_t c = 0; c < count && !wrong; c++) {
        size_t at = (size_t)(c < kept ? order[head[c]] : order[c]);
        float score = c < kept ? heavy[head[c]] : light[at];
        if (kept && c >= kept && heavy[head[kept - 1]] < score) score = heavy[head[kept - 1]];
        ((int32_t *)v[6].buf)[c] = ((const int32_t *)v[4].buf)[at];
        ((float *)v[7].buf)[c] = score, ((uint8_t *)v[8].buf)[c] = ((const uint8_t *)v[5].buf)[at];
    }
    give_back((Given){v, 9});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected orders of %zu candidates and of the %zu that are kept", count, kept);
    Py_RETURN_NONE;
}
