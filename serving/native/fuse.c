/* One pool from the lists of the sources (serving/retrieval/fusion.py). */
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

/* Memory for M distinct items of L listed ones, and for the slots of all items, which are all zero before and after. */
typedef struct {
    uint16_t *slots, *met, *place; /* (I,) number + 1 of every item met; (L,) number of each listed item; (M,) place in the pool + 1 by number */
    int32_t *rows;                 /* (M,) */
    double *sums;                  /* (M,) fused scores */
    float *scores, *terms;         /* (M,) the same, rounded; (L,) what a place in the list at hand adds */
    uint8_t *kept;                 /* (M,) promised a place */
    Scored *found, *spare;         /* (M,) each */
} Room;

HOT static void place_terms(const Listed *list, float *terms) {
    for (size_t j = 0; j < list->listed; j++) terms[j] = list->weight / ((float)(int32_t)j + list->offset);
}

/* Distinct items in the order of their first place, each with its fused score. */
static size_t gather(const Lists *all, Room r) {
    size_t distinct = 0;
    uint16_t *met = r.met;
    for (size_t s = 0; s < all->sources; s++) {
        const Listed *list = &all->lists[s];
        size_t promised = list->promised > 0 ? (size_t)list->promised : 0;
        place_terms(list, r.terms);
        for (size_t j = 0; j < list->listed; j++) {
            int32_t row = list->rows[j];
            uint16_t slot = r.slots[row];
            if (j + AHEAD < list->listed) __builtin_prefetch(r.slots + list->rows[j + AHEAD]);
            if (!slot) {
                slot = r.slots[row] = (uint16_t)++distinct;
                r.sums[slot - 1] = 0, r.kept[slot - 1] = 0, r.rows[slot - 1] = row;
            }
            *met++ = slot -= 1;
            r.sums[slot] += (double)r.terms[j];
            r.kept[slot] |= j < promised;
        }
    }
    for (size_t m = 0; m < distinct; m++) r.slots[r.rows[m]] = 0;
    for (size_t m = 0; m < distinct; m++) r.scores[m] = (float)r.sums[m];
    return distinct;
}

/* Those that may be in the pool, best first: all promised ones, and of the others the best `room`, with a few that come as near. */
static Scored *candidates(Room r, size_t distinct, size_t room, size_t *count) {
    float least = -INFINITY;
    if (room < distinct) {
        size_t others = 0;
        for (size_t m = 0; m < distinct; m++)
            if (!r.kept[m]) r.terms[others++] = r.scores[m];
        least = room < others ? near_nth(r.terms, others, room, (uint32_t *)r.spare) : -INFINITY;
    }
    *count = 0;
    for (size_t m = 0; m < distinct; m++) {
        r.found[*count] = (Scored){r.scores[m], (int32_t)m};
        *count += r.kept[m] || r.scores[m] >= least;
    }
    return falling(r.found, r.spare, *count);
}

/* Rows, fused scores, ranks and what was had before. */
static size_t fill(const Lists *all, Room r, Pool out) {
    size_t distinct = gather(all, r), promised = 0, count = 0, sources = all->sources, near;
    for (size_t m = 0; m < distinct; m++) promised += r.kept[m];
    size_t room = distinct <= all->pool ? distinct : all->pool > promised ? all->pool - promised : 0;
    const Scored *order = candidates(r, distinct, room, &near);
    memset(r.place, 0, distinct * 2);
    for (size_t n = 0; n < near; n++) {
        size_t m = (size_t)order[n].at;
        if (all->flags && n + AHEAD < near) __builtin_prefetch(all->flags + r.rows[order[n + AHEAD].at]);
        if (!r.kept[m] && !room) continue;
        room -= !r.kept[m];
        if (all->flags && all->flags[r.rows[m]] & all->barring) continue; /* leaves its place empty */
        out.rows[count] = r.rows[m], out.fused[count] = order[n].score, out.seen[count] = 0;
        r.place[m] = (uint16_t)++count;
    }
    for (size_t i = 0; i < count * sources; i++) out.ranks[i] = INFINITY;
    const uint16_t *met = r.met;
    for (size_t s = 0; s < sources; s++)
        for (size_t j = 0; j < all->lists[s].listed; j++) {
            size_t place = r.place[*met++];
            if (place) out.ranks[(place - 1) * sources + s] = (float)(int32_t)j;
        }
    for (size_t c = 0; c < count; c++) r.slots[out.rows[c]] = (uint16_t)(c + 1);
    for (size_t h = 0; h < all->had; h++) {
        uint16_t slot = r.slots[all->history[h]];
        if (slot) out.seen[slot - 1] = 1;
    }
    for (size_t c = 0; c < count; c++) r.slots[out.rows[c]] = 0;
    return count;
}

/* One source's score of each candidate: its value by position, or only what it listed. `places` (C,) is room. */
static void read_scores(const Listed *list, const int32_t *rows, size_t count, size_t sources, const float *ranks, float *scores, uint32_t *places) {
    if (!list->values) {
        for (size_t c = 0; c < count; c++) scores[c * sources] = isfinite(ranks[c * sources]) ? list->scores[(size_t)ranks[c * sources]] : 0;
        return;
    }
    for (size_t c = 0; c < count; c++) {
        size_t row = (size_t)rows[c], place = list->valued;
        if (c + AHEAD < count && list->at && (size_t)rows[c + AHEAD] < list->known) __builtin_prefetch(list->at + rows[c + AHEAD]);
        if (row < list->known) place = list->at ? (size_t)list->at[row] : row;
        places[c] = (uint32_t)(place < list->valued ? place : list->valued); /* -1 is beyond all of them */
        __builtin_prefetch(list->values + places[c]);
    }
    for (size_t c = 0; c < count; c++) scores[c * sources] = places[c] < list->valued ? list->values[places[c]] : 0;
}

/* 0: exception. */
static int make_room(size_t items, size_t listed, Room *r) {
    char *memory = kept_memory(KEPT_SUMS, (listed + 1) * (8 + 4 + 4 + 4 + 2 + 2 + 1));
    *r = (Room){.slots = kept_zeros(KEPT_SLOTS, (items + 1) * 2), .found = kept_memory(KEPT_FOUND, (listed + 1) * sizeof(Scored)), .spare = kept_memory(KEPT_SPARE, (listed + 1) * sizeof(Scored))};
    if (!memory || !r->slots || !r->found || !r->spare) return 0;
    r->sums = (double *)memory;
    r->scores = (float *)(r->sums + listed + 1), r->terms = r->scores + listed + 1, r->rows = (int32_t *)(r->terms + listed + 1);
    r->met = (uint16_t *)(r->rows + listed + 1), r->place = r->met + listed + 1, r->kept = (uint8_t *)(r->place + listed + 1);
    return 1;
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
        Room r;
        Pool out = {v[1].buf, v[2].buf, v[3].buf, v[4].buf, v[5].buf};
        if (make_room((size_t)items, all.listed, &r)) {
            count = (Py_ssize_t)fill(&all, r, out);
            for (size_t s = 0; s < all.sources; s++) read_scores(&lists[s], out.rows, (size_t)count, all.sources, out.ranks + s, out.scores + s, (uint32_t *)r.found);
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
