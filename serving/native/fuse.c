/* One pool from the lists of the sources (serving/fusion.py). */
#include "kernel.h"

enum { MOST_SOURCES = 64, MOST_LISTED = 65534, AHEAD = 16 }; /* an item's slot has sixteen bits: the table of slots stays in the nearest caches */

typedef struct {
    const int32_t *rows, *at; /* best first; of an item in `values`, NULL: at its row */
    const float *scores, *values;
    size_t listed, known, valued; /* lengths of rows, at (else of values), values */
    float weight, offset;
    Py_ssize_t promised;
} Listed;

typedef struct {
    const Listed *lists;
    const int32_t *history;
    const uint8_t *flags; /* (I,) of each item, NULL: none has any */
    size_t sources, had, pool, listed;
    unsigned barring; /* flags that keep an item out */
} Lists;

typedef struct {
    int32_t *rows;
    float *fused, *ranks, *scores;
    uint8_t *seen;
} Pool;

/* Distinct items in the order of their first place, each with its fused score. `slots` holds the position + 1 of every item met. */
static size_t gather(const Lists *all, uint16_t *slots, Scored *found, double *sums, uint8_t *kept) {
    size_t distinct = 0;
    for (size_t s = 0; s < all->sources; s++) {
        const Listed *list = &all->lists[s];
        for (size_t j = 0; j < list->listed; j++) {
            int32_t row = list->rows[j];
            uint16_t slot = slots[row];
            if (j + AHEAD < list->listed) __builtin_prefetch(slots + list->rows[j + AHEAD]);
            if (!slot) {
                slot = slots[row] = (uint16_t)++distinct;
                sums[slot - 1] = 0, kept[slot - 1] = 0, found[slot - 1].at = row;
            }
            sums[slot - 1] += (double)(list->weight / ((float)j + list->offset));
            kept[slot - 1] |= (Py_ssize_t)j < list->promised;
        }
    }
    for (size_t m = 0; m < distinct; m++) found[m].score = (float)sums[m];
    return distinct;
}

/* Rows, fused scores, ranks and what was had before. */
static size_t fill(const Lists *all, uint16_t *slots, Scored *found, Scored *spare, double *sums, uint8_t *kept, Pool out) {
    size_t distinct = gather(all, slots, found, sums, kept), promised = 0, count = 0, sources = all->sources;
    for (size_t m = 0; m < distinct; m++) promised += kept[m];
    size_t room = distinct <= all->pool ? distinct : all->pool > promised ? all->pool - promised : 0;
    Scored *order = falling(found, spare, distinct);
    for (size_t m = 0; m < distinct; m++) {
        int32_t row = order[m].at;
        if (all->flags && m + AHEAD < distinct) __builtin_prefetch(all->flags + order[m + AHEAD].at);
        uint8_t must = kept[slots[row] - 1];
        slots[row] = 0;
        if (!must && !room) continue;
        room -= !must;
        if (all->flags && all->flags[row] & all->barring) continue; /* leaves its place empty */
        out.rows[count] = row, out.fused[count] = order[m].score, out.seen[count] = 0;
        count++;
    }
    for (size_t c = 0; c < count; c++) slots[out.rows[c]] = (uint16_t)(c + 1);
    for (size_t i = 0; i < count * sources; i++) out.ranks[i] = INFINITY;
    for (size_t s = 0; s < sources; s++)
        for (size_t j = 0; j < all->lists[s].listed; j++) {
            uint16_t slot = slots[all->lists[s].rows[j]];
            if (slot) out.ranks[(size_t)(slot - 1) * sources + s] = (float)j;
        }
    for (size_t h = 0; h < all->had; h++) {
        uint16_t slot = slots[all->history[h]];
        if (slot) out.seen[slot - 1] = 1;
    }
    for (size_t c = 0; c < count; c++) slots[out.rows[c]] = 0;
    return count;
}

/* One source's score of each candidate: its value by position, or only what it listed. Two looks behind one another, each asked for before. */
static void read_scores(const Listed *list, const int32_t *rows, size_t count, size_t sources, const float *ranks, float *scores) {
    size_t place[2 * AHEAD]; /* where the next candidates' values are, `valued` or more where there is none */
    for (size_t c = 0; c < count + AHEAD; c++) {
        if (c < count) {
            size_t row = (size_t)rows[c], at = list->valued;
            if (c + AHEAD < count && list->at && (size_t)rows[c + AHEAD] < list->known) __builtin_prefetch(list->at + rows[c + AHEAD]);
            if (row < list->known) at = list->at ? (size_t)list->at[row] : row; /* -1 is beyond all of them */
            if (at < list->valued) __builtin_prefetch(list->values + at);
            place[c % (2 * AHEAD)] = at;
        }
        if (c < AHEAD) continue;
        size_t i = (c - AHEAD) * sources, at = place[(c - AHEAD) % (2 * AHEAD)];
        if (list->values) scores[i] = at < list->valued ? list->values[at] : 0;
        else scores[i] = isfinite(ranks[i]) ? list->scores[(size_t)ranks[i]] : 0;
    }
}

static int beyond(const int32_t *rows, size_t count, size_t items) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= rows[i] < 0 || (size_t)rows[i] >= items;
    return wrong;
}

/* One source: (rows int32 (n,), scores float32 (n,), values float32 or None, positions int32 (I,) or None, weight, offset, promised). */
static int read_list(PyObject *given, Py_buffer *v, size_t items, Listed *list) {
    if (!PyArg_ParseTuple(given, "y*y*z*z*ffn", &v[0], &v[1], &v[2], &v[3], &list->weight, &list->offset, &list->promised)) return 0;
    list->rows = v[0].buf, list->scores = v[1].buf, list->values = v[2].buf, list->at = v[3].buf;
    list->listed = (size_t)v[0].len / 4, list->valued = list->values ? (size_t)v[2].len / 4 : 0;
    list->known = list->at ? (size_t)v[3].len / 4 : list->valued;
    if (v[1].len == v[0].len && !beyond(list->rows, list->listed, items)) return 1;
    PyErr_Format(PyExc_ValueError, "expected a list of rows below %zu, with a score each", items);
    return 0;
}

/* fuse(sources (S) as `read_list` takes them, history int32 (H,), items, pool, flags uint8 (I,) or None, barring, rows int32 (M,) out, fused float32 (M,) out, ranks float32 (M, S) out,
 *      scores float32 (M, S) out, seen uint8 (M,) out) -> size of the pool. M: all that is listed, or what the pool takes at most */
PyObject *py_fuse(PyObject *self, PyObject *args) {
    Py_buffer v[7] = {{0}}, of[MOST_SOURCES * 4] = {{0}};
    Listed lists[MOST_SOURCES];
    Py_ssize_t items, pool, count = -1;
    PyObject *given;
    unsigned barring;
    if (!PyArg_ParseTuple(args, "O!y*nnz*Iw*w*w*w*w*", &PyTuple_Type, &given, &v[0], &items, &pool, &v[6], &barring, &v[1], &v[2], &v[3], &v[4], &v[5])) return NULL;
    Lists all = {lists, v[0].buf, v[6].buf, (size_t)PyTuple_GET_SIZE(given), (size_t)v[0].len / 4, (size_t)pool, 0, barring};
    int sound = (!v[6].buf || v[6].len == items) && all.sources >= 1 && all.sources <= MOST_SOURCES && items >= 0 && pool >= 0 && !beyond(all.history, all.had, (size_t)items);
    size_t read = 0, room = (size_t)v[5].len, most = all.pool, promised = 0;
    for (; sound && read < all.sources; read++) {
        sound = read_list(PyTuple_GET_ITEM(given, read), of + 4 * read, (size_t)items, &lists[read]);
        all.listed += sound ? lists[read].listed : 0;
        promised += sound && lists[read].promised > 0 ? (size_t)lists[read].promised : 0;
    }
    most = promised > most ? promised : most;
    sound = sound && all.listed <= MOST_LISTED && room >= (all.listed < most ? all.listed : most) && (size_t)v[1].len == room * 4 && v[2].len == v[1].len &&
            (size_t)v[3].len == room * all.sources * 4 && v[4].len == v[3].len;
    if (sound) {
        uint16_t *slots = kept_zeros(KEPT_SLOTS, ((size_t)items + 1) * 2);
        Scored *found = kept_memory(KEPT_FOUND, (all.listed + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (all.listed + 1) * sizeof(Scored));
        double *sums = kept_memory(KEPT_SUMS, (all.listed + 1) * 8);
        uint8_t *kept = kept_memory(KEPT_KINDS, all.listed + 1);
        Pool out = {v[1].buf, v[2].buf, v[3].buf, v[4].buf, v[5].buf};
        if (slots && found && spare && sums && kept) {
            count = (Py_ssize_t)fill(&all, slots, found, spare, sums, kept, out);
            for (size_t s = 0; s < all.sources; s++) read_scores(&lists[s], out.rows, (size_t)count, all.sources, out.ranks + s, out.scores + s);
        }
    } else if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError, "expected 1 to %d sources that list at most %d of %zd items, and room for all of them", MOST_SOURCES, MOST_LISTED, items);
    }
    give_back((Given){of, (int)(4 * read)});
    give_back((Given){v, 7});
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
