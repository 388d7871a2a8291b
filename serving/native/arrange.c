/* The end of a request (serving/rules/arrange.py, serving/retrieval/reasons.py): which rows may be shown, the rules' walk over a ranked list where it is plain,
 * and what is told of each item. */
#include "kernel.h"

enum { MOST = 8, NEAR = 128, PAGE = 64 }; /* caps or floors, items looked at for one page, items of a page */

/* A column over all items and a number that goes with it: group codes and how many of one group, or new items and how many of them. */
typedef struct {
    Py_buffer views[MOST];
    Py_ssize_t most[MOST];
    int count;
} Columns;

/* 0: an exception is set, or there are too many; both as "not plain" */
static int read_columns(PyObject *given, Py_ssize_t bytes, Columns *out) {
    if (PyTuple_GET_SIZE(given) > MOST) return 0;
    for (; out->count < PyTuple_GET_SIZE(given); out->count++) {
        PyObject *one = PyTuple_GET_ITEM(given, out->count);
        if (!PyArg_ParseTuple(one, "y*n", &out->views[out->count], &out->most[out->count])) return 0;
        if (out->views[out->count].len < bytes) {
            PyErr_SetString(PyExc_ValueError, "expected columns over all items");
            out->count++;
            return 0;
        }
    }
    return 1;
}

typedef struct {
    const int32_t *rows;
    const uint8_t *left_out; /* NULL: nothing is */
    size_t count, read, wanted;
    const Columns *caps;
    int32_t page[PAGE], skipped[NEAR], dropped[MOST * PAGE], added[MOST * PAGE]; /* positions in the list */
    uint8_t by[NEAR];
    size_t skips, drops, adds;
} Walk;

static int32_t group(const Walk *w, int cap, int32_t at) { return ((const int32_t *)w->caps->views[cap].buf)[w->rows[at]]; }

/* The first cap that has no room for one more beside the page, its position `without` left out; -1: there is room. */
static int full(const Walk *w, const int32_t *page, size_t count, int32_t without, int32_t at) {
    for (int c = 0; c < w->caps->count; c++) {
        int32_t code = group(w, c, at);
        Py_ssize_t same = 0;
        for (size_t p = 0; code && p < count; p++) same += page[p] != without && group(w, c, page[p]) == code;
        if (code && same >= w->caps->most[c]) return c;
    }
    return -1;
}

/* The first items that fit, until the page is full; 0: it is not with those that are near. */
static int fill_page(Walk *w) {
    size_t held = 0, seen = 0;
    for (; w->read < w->count && held < w->wanted && seen < NEAR; w->read++) {
        int32_t at = (int32_t)w->read;
        if (w->left_out && w->left_out[at]) continue;
        int cap = full(w, w->page, held, -1, at);
        seen++;
        if (cap < 0) w->page[held++] = at;
        else w->by[w->skips] = (uint8_t)cap, w->skipped[w->skips++] = at;
    }
    return held == w->wanted;
}

static int among(const int32_t *some, size_t count, int32_t at) {
    for (size_t i = 0; i < count; i++)
        if (some[i] == at) return 1;
    return 0;
}

/* Among what the page left out (last dropped first, then skipped, then not read) the first new item that fits in the place of `old`; -1: none. */
static int32_t fitting(const Walk *w, const uint8_t *new, int32_t old) {
    for (size_t i = 0; i < w->drops + w->skips + (w->count - w->read); i++) {
        size_t after = i - w->drops;
        int32_t at = i < w->drops ? w->dropped[w->drops - 1 - i] : after < w->skips ? w->skipped[after] : (int32_t)(w->read + after - w->skips);
        if (!new[w->rows[at]] || (w->left_out && w->left_out[at]) || among(w->added, w->adds, at)) continue;
        if (full(w, w->page, w->wanted, old, at) < 0) return at;
    }
    return -1;
}

static void forget(int32_t *some, size_t *count, int32_t at) {
    for (size_t i = 0; i < *count; i++)
        if (some[i] == at) {
            memmove(some + i, some + i + 1, (--*count - i) * sizeof *some);
            return;
        }
}

/* New items in the place of the page's last others, until there are `least`; how many were added, and how many are lacking still. */
static size_t meet_floor(Walk *w, const uint8_t *new, size_t least, size_t *lacking) {
    int32_t old[PAGE];
    size_t others = 0, begun = w->adds;
    for (size_t p = 0; p < w->wanted; p++)
        if (!new[w->rows[w->page[p]]]) old[others++] = w->page[p];
    least = least < w->wanted ? least : w->wanted;
    for (*lacking = least > w->wanted - others ? least - (w->wanted - others) : 0; *lacking && others; --*lacking) {
        int32_t last = old[--others], fit = fitting(w, new, last);
        size_t held = w->wanted;
        if (fit < 0) break;
        forget(w->page, &held, last);
        w->page[held] = fit;
        if (among(w->added, w->adds, last)) forget(w->added, &w->adds, last), begun--;
        w->dropped[w->drops++] = last, w->added[w->adds++] = fit;
        forget(w->dropped, &w->drops, fit);
    }
    return w->adds - begun;
}

static PyObject *rows_of(const Walk *w, const int32_t *at, size_t count) {
    PyObject *told = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; told && i < count; i++) PyTuple_SET_ITEM(told, i, PyLong_FromLong(w->rows[at[i]]));
    return told;
}

static PyObject *skipped_by(const Walk *w, int cap) {
    int32_t at[NEAR];
    size_t count = 0;
    for (size_t i = 0; i < w->skips; i++)
        if (w->by[i] == cap) at[count++] = w->skipped[i];
    return rows_of(w, at, count);
}

/* (rows skipped by each cap, (rows added, how many are lacking) of each floor) */
static PyObject *walked(Walk *w, const Columns *floors) {
    PyObject *skips = PyTuple_New(w->caps->count), *met = PyTuple_New(floors->count);
    for (int c = 0; skips && met && c < w->caps->count; c++) PyTuple_SET_ITEM(skips, c, skipped_by(w, c));
    for (int f = 0; skips && met && f < floors->count; f++) {
        size_t lacking, added = meet_floor(w, floors->views[f].buf, floors->most[f] < 0 ? 0 : (size_t)floors->most[f], &lacking);
        PyTuple_SET_ITEM(met, f, Py_BuildValue("Nn", rows_of(w, w->added + w->adds - added, added), (Py_ssize_t)lacking));
    }
    if (skips && met && !PyErr_Occurred()) return Py_BuildValue("NN", skips, met);
    Py_XDECREF(skips);
    Py_XDECREF(met);
    return NULL;
}

static int barred(const int32_t *rows, size_t count, const uint8_t *flags, size_t items, int bits) {
    for (size_t i = 0; i < count; i++)
        if (rows[i] < 0 || (size_t)rows[i] >= items || flags[rows[i]] & bits) return 1;
    return 0;
}

/* page(rows int32 (N,), scores float32 (N,), left out uint8 (N,) or None, flags uint8 (I,), bits, caps, floors, rows int32 (k,) out,
 *      scores float32 (k,) out) -> what was skipped and added; None where it is not plain: a row carries one of the bits, or the caps leave the page
 * short. `caps`: (codes int32 (I,), how many) each; `floors`: (new uint8 (I,), how many) each. */
PyObject *py_page(PyObject *self, PyObject *args) {
    Py_buffer v[6] = {{0}};
    PyObject *cap, *floor, *out = NULL;
    int bits;
    if (!PyArg_ParseTuple(args, "y*y*z*y*iO!O!w*w*", &v[0], &v[1], &v[2], &v[3], &bits, &PyTuple_Type, &cap, &PyTuple_Type, &floor, &v[4], &v[5])) return NULL;
    Columns caps = {.count = 0}, floors = {.count = 0};
    Walk w = {.rows = v[0].buf, .left_out = v[2].buf, .count = (size_t)v[0].len / 4, .wanted = (size_t)v[4].len / 4, .caps = &caps};
    size_t items = (size_t)v[3].len;
    int plain = read_columns(cap, (Py_ssize_t)items * 4, &caps) && read_columns(floor, (Py_ssize_t)items, &floors);
    if (plain && (v[1].len != v[0].len || (v[2].buf && (size_t)v[2].len != w.count) || v[5].len != v[4].len))
        PyErr_SetString(PyExc_ValueError, "expected a score and a mark for every row, and room for a score and a row each");
    else if (plain && w.wanted <= PAGE && !barred(w.rows, w.count, v[3].buf, items, bits) && fill_page(&w)) {
        out = walked(&w, &floors);
        for (size_t p = 0; out && p < w.wanted; p++)
            ((int32_t *)v[4].buf)[p] = w.rows[w.page[p]], ((float *)v[5].buf)[p] = ((const float *)v[1].buf)[w.page[p]];
    }
    for (int c = 0; c < caps.count; c++) PyBuffer_Release(&caps.views[c]);
    for (int f = 0; f < floors.count; f++) PyBuffer_Release(&floors.views[f]);
    give_back((Given){v, 6});
    if (out || PyErr_Occurred()) return out;
    Py_RETURN_NONE;
}

/* Sources in the order of their finite ranks, ties by source. */
static PyObject *by_rank(const float *ranks, size_t sources) {
    size_t order[64], count = 0;
    for (size_t s = 0; s < sources; s++) {
        if (!isfinite(ranks[s])) continue;
        size_t at = count++;
        for (; at && ranks[order[at - 1]] > ranks[s]; at--) order[at] = order[at - 1];
        order[at] = s;
    }
    PyObject *told = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; told && i < count; i++) PyTuple_SET_ITEM(told, i, PyLong_FromSize_t(order[i]));
    return told;
}

static Py_ssize_t place_in(const int32_t *rising, size_t count, int32_t row) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (rising[middle] < row) low = middle + 1;
        else high = middle;
    }
    return low < count && rising[low] == row ? (Py_ssize_t)low : -1;
}

/* known(pool int32 (C,), ranks float32 (C, S), history int32 (H,) rising, rows int32 (k,)) -> of each row the sources that returned it, best rank
 * first (None: it is not in the pool), and its place in the history, -1 where it is not */
PyObject *py_known(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*y*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t pool = (size_t)v[0].len / 4, had = (size_t)v[2].len / 4, asked = (size_t)v[3].len / 4, sources = pool ? (size_t)v[1].len / 4 / pool : 0;
    const int32_t *rows = v[0].buf;
    PyObject *told = NULL;
    if (sources > 64 || (size_t)v[1].len != pool * sources * 4) PyErr_SetString(PyExc_ValueError, "expected a rank for each of up to 64 sources");
    else told = PyList_New((Py_ssize_t)asked);
    for (size_t i = 0; told && i < asked; i++) {
        int32_t row = ((const int32_t *)v[3].buf)[i];
        size_t at = 0;
        while (at < pool && rows[at] != row) at++;
        PyObject *found = at < pool ? by_rank((const float *)v[1].buf + at * sources, sources) : Py_NewRef(Py_None);
        PyObject *one = Py_BuildValue("Nn", found, place_in(v[2].buf, had, row));
        if (one) PyList_SET_ITEM(told, i, one);
        else Py_CLEAR(told);
    }
    give_back((Given){v, 4});
    return told;
}

/* nearest(neighbours (M, K) uint16 or int32, weights int16 (M, K), voters int32 (V,), strengths float32 (V,), target) -> the number of the voter
 * with the greatest weight x strength for the target, the first of equals; -1: none is above 0 */
PyObject *py_nearest(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    Py_ssize_t rows, target, found = -1;
    if (!PyArg_ParseTuple(args, "y*y*ny*y*n", &v[0], &v[1], &rows, &v[2], &v[3], &target)) return NULL;
    size_t voters = (size_t)v[2].len / 4, entries = (size_t)v[1].len / 2, k = rows > 0 ? entries / (size_t)rows : 0;
    const uint16_t *narrow = (size_t)v[0].len == entries * 2 ? v[0].buf : NULL;
    const int32_t *wide = v[0].buf, *voter = v[2].buf;
    int wrong = rows < 0 || k * (size_t)rows != entries || (!narrow && (size_t)v[0].len != entries * 4) || v[3].len != v[2].len;
    float most = 0;
    for (size_t i = 0; i < voters && !wrong; i++) {
        wrong = voter[i] < 0 || voter[i] >= rows;
        for (size_t j = 0; j < k && !wrong; j++) {
            size_t at = (size_t)voter[i] * k + j;
            if ((narrow ? (Py_ssize_t)narrow[at] : wide[at]) != target) continue;
            float part = (float)((const int16_t *)v[1].buf)[at] * ((const float *)v[3].buf)[i];
            if (part > most) most = part, found = (Py_ssize_t)i;
        }
    }
    give_back((Given){v, 4});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected voters within a table of %zd, with a strength each", rows);
    return PyLong_FromSsize_t(found);
}
