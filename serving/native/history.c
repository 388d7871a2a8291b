/* A user's history on the rows of a bundle (serving/query.py): resolved, sorted by row, aged to the request's moment. */
#include "kernel.h"

enum { EXACT_ROWS = 1 << 24 }; /* integers a float holds exactly: rows are sorted as floats */

enum { STEP_BITS = 10, STEPS = 1 << STEP_BITS };

typedef struct {
    const uint64_t *keys;
    const int32_t *rows, *steps; /* steps (STEPS + 1,): how many keys are below each step of the highest bits */
    size_t items;
} Index;

/* Keys are hashes: where a key would be among those evenly spread between two steps is a few places from where it is. */
static inline size_t near(Index index, uint64_t key) {
    size_t step = key >> (64 - STEP_BITS), begin = (size_t)index.steps[step], count = (size_t)index.steps[step + 1] - begin;
    size_t place = begin + (size_t)(((key << STEP_BITS >> 32) * count) >> 32);
    return place < index.items ? place : index.items - 1;
}

/* Where the first key at or above this one is. */
static size_t place_of(Index index, uint64_t key) {
    const uint64_t *sorted = index.keys;
    size_t guess = near(index, key), low = 0, high = index.items, step = 4;
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
    return low;
}

/* The row of each key, -1 where there is none: places first, so that the memory they point to is on its way. */
static void rows_of(Index index, const uint64_t *keys, size_t count, int32_t *rows) {
    for (size_t h = 0; h < count && index.items; h++) {
        if (h + 16 < count) {
            const uint64_t *ahead = index.keys + near(index, keys[h + 16]);
            __builtin_prefetch(ahead), __builtin_prefetch(ahead + 7), __builtin_prefetch(ahead - 7);
        }
        size_t place = place_of(index, keys[h]);
        int known = place < index.items && index.keys[place] == keys[h];
        rows[h] = known ? (int32_t)place : -1;
        if (known) __builtin_prefetch(index.rows + place);
    }
    for (size_t h = 0; h < count; h++) rows[h] = rows[h] < 0 || !index.items ? -1 : index.rows[rows[h]];
}

/* Are the steps what they must be, so that no place is beyond the keys? */
static int sound(Index index, size_t rows, size_t steps) {
    if (rows != index.items || steps != STEPS + 1 || index.steps[0] != 0 || (size_t)index.steps[STEPS] != index.items) return 0;
    for (size_t s = 0; s < STEPS; s++)
        if (index.steps[s] > index.steps[s + 1]) return 0;
    return 1;
}

/* resolve(sorted keys uint64 (I,), their rows int32 (I,), steps int32 (STEPS + 1,), keys uint64 (H,), out int32 (H,)) */
PyObject *py_resolve(PyObject *self, PyObject *args) {
    Py_buffer v[5] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &v[0], &v[1], &v[2], &v[3], &v[4])) return NULL;
    Index index = {v[0].buf, v[1].buf, v[2].buf, (size_t)v[0].len / 8};
    size_t count = (size_t)v[3].len / 8;
    int wrong = !sound(index, (size_t)v[1].len / 4, (size_t)v[2].len / 4) || (size_t)v[4].len != count * 4;
    if (!wrong) rows_of(index, v[3].buf, count, v[4].buf);
    give_back((Given){v, 5});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected a row for each of %zu keys, and room for %zu", index.items, count);
    Py_RETURN_NONE;
}

typedef struct {
    const double *last, *first, *taus;
    const float *counts, *decayed;
    size_t known, kinds;
    double day;
} Events;

typedef struct {
    int32_t *rows;
    int64_t *order;
    float *counts, *age, *span, *decayed;
} Aged;

/* What is said of each event's item, in the order `sorted`, at the day; `exponents` (T, H) is room. */
static void age_all(const Events *of, const Scored *sorted, double *exponents, Aged out) {
    for (size_t i = 0; i < of->known; i++) {
        size_t h = (size_t)sorted[i].at;
        double age = of->day - of->last[h] > 0 ? of->day - of->last[h] : 0;
        out.rows[i] = (int32_t)-sorted[i].score, out.order[i] = (int64_t)h, out.counts[i] = of->counts[h];
        out.age[i] = (float)age, out.span[i] = (float)(of->last[h] - of->first[h]);
        for (size_t t = 0; t < of->kinds; t++) exponents[t * of->known + i] = -age / of->taus[t];
    }
    exps(exponents, of->known * of->kinds);
    for (size_t t = 0; t < of->kinds; t++)
        for (size_t i = 0; i < of->known; i++)
            out.decayed[t * of->known + i] = (float)((double)of->decayed[(size_t)sorted[i].at * of->kinds + t] * exponents[t * of->known + i]);
}

/* recall(sorted keys, their rows, steps, keys uint64 (H,), last day float64 (H,), first day float64 (H,), counts float32 (H,), decayed float32 (H, T),
 *        taus float64 (T,), day, rows int32 (H,) out, order int64 (H,) out, counts, age, span float32 (H,) out, decayed float32 (T H,) out)
 *        -> how many are known; what is said of them stands first in each */
PyObject *py_recall(PyObject *self, PyObject *args) {
    enum { KEYS, ROWS, STEP, ASKED, LAST, FIRST, COUNTS, DECAYED, TAUS, OUT_ROWS, OUT_ORDER, OUT_COUNTS, OUT_AGE, OUT_SPAN, OUT_DECAYED, ALL };
    Py_buffer v[ALL] = {{0}};
    double day;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*y*dw*w*w*w*w*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8], &day, &v[9], &v[10], &v[11], &v[12], &v[13],
                          &v[14]))
        return NULL;
    Index index = {v[KEYS].buf, v[ROWS].buf, v[STEP].buf, (size_t)v[KEYS].len / 8};
    size_t count = (size_t)v[ASKED].len / 8, taus = (size_t)v[TAUS].len / 8, known = 0;
    int wrong = !sound(index, (size_t)v[ROWS].len / 4, (size_t)v[STEP].len / 4) || index.items >= EXACT_ROWS || (size_t)v[LAST].len != count * 8 || (size_t)v[FIRST].len != count * 8 ||
                (size_t)v[COUNTS].len != count * 4 || (size_t)v[DECAYED].len != count * taus * 4 || (size_t)v[OUT_ROWS].len != count * 4 ||
                (size_t)v[OUT_ORDER].len != count * 8 || (size_t)v[OUT_COUNTS].len != count * 4 || (size_t)v[OUT_AGE].len != count * 4 ||
                (size_t)v[OUT_SPAN].len != count * 4 || (size_t)v[OUT_DECAYED].len != count * taus * 4;
    Scored *found = kept_memory(KEPT_FOUND, (count + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (count + 1) * sizeof(Scored));
    double *exponents = kept_memory(KEPT_SUMS, (count + 1) * taus * 8);
    if (!wrong && found && spare && exponents) {
        int32_t *rows = v[OUT_ROWS].buf; /* of the keys first, then in their own order */
        rows_of(index, v[ASKED].buf, count, rows);
        for (size_t h = 0; h < count; h++)
            if (rows[h] >= 0) found[known++] = (Scored){(float)-rows[h], (int32_t)h};
        Events of = {v[LAST].buf, v[FIRST].buf, v[TAUS].buf, v[COUNTS].buf, v[DECAYED].buf, known, taus, day};
        Aged out = {rows, v[OUT_ORDER].buf, v[OUT_COUNTS].buf, v[OUT_AGE].buf, v[OUT_SPAN].buf, v[OUT_DECAYED].buf};
        age_all(&of, falling(found, spare, known), exponents, out);
    }
    give_back((Given){v, ALL});
    if (!found || !spare || !exponents) return NULL;
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected %zu keys with what is said of each, and fewer than %d items", count, EXACT_ROWS);
    return PyLong_FromSize_t(known);
}

static int below(const int32_t *rows, size_t count, size_t items) {
    int within = 1;
    for (size_t n = 0; n < count; n++) within &= rows[n] >= 0 && (size_t)rows[n] < items;
    return within;
}

int read_past(PyObject *given, Py_buffer *v, size_t items, Past *past) {
    if (!PyArg_ParseTuple(given, "y*y*y*y*y*", &v[0], &v[1], &v[2], &v[3], &v[4])) return 0;
    *past = (Past){v[0].buf, v[3].buf, v[1].buf, v[2].buf, v[4].buf, (size_t)v[0].len / 4, (size_t)v[2].len / 4, (size_t)v[3].len / 4};
    int sound = v[4].len == v[3].len && (size_t)v[1].len == past->had * past->taus * 4 && past->taus;
    if (sound && below(past->rows, past->had, items) && below(past->clicked, past->events, items)) return 1;
    PyErr_Format(PyExc_ValueError, "expected history and session on rows within a table of %zu, with decays and weights", items);
    return 0;
}

/* Of each item the counts by every decay, each times its share; the first share that is not 0 begins the sum. */
static void mix_counts(const Past *past, float *counts) {
    int begun = 0;
    memset(counts, 0, past->had * 4);
    for (size_t t = 0; t < past->taus; t++) {
        const float *line = past->decayed + t * past->had;
        if (past->mix[t] == 0) continue;
        for (size_t h = 0; h < past->had; h++) counts[h] = begun ? counts[h] + line[h] * past->mix[t] : line[h] * past->mix[t];
        begun = 1;
    }
}

/* The `limit` heaviest, ties by position, in the order they stand in; `weights` and `rows` hold all of them before. -1: exception. */
static Py_ssize_t heaviest(float *weights, int32_t *rows, size_t count, size_t limit) {
    Scored *best;
    uint8_t *kept = kept_memory(KEPT_KINDS, count);
    if (!kept || best_of(weights, count, limit, -INFINITY, NULL, 0, &best) < 0) return -1;
    memset(kept, 0, count);
    for (size_t i = 0; i < limit; i++) kept[best[i].at] = 1;
    size_t left = 0;
    for (size_t h = 0; h < count; h++)
        if (kept[h]) weights[left] = weights[h], rows[left++] = rows[h];
    return (Py_ssize_t)left;
}

Py_ssize_t weigh(const Past *past, int logged, size_t limit, int32_t **rows, float **weights) {
    size_t room = past->had + past->events + 1;
    char *memory = kept_memory(KEPT_PAST, room * 8);
    if (!memory) return -1;
    *weights = (float *)memory, *rows = (int32_t *)(memory + room * 4);
    mix_counts(past, *weights);
    memcpy(*rows, past->rows, past->had * 4);
    if (logged) {
        for (size_t h = 0; h < past->had; h++) (*weights)[h] += 1.0f;
        logs(*weights, past->had);
    }
    Py_ssize_t count = limit && past->had > limit ? heaviest(*weights, *rows, past->had, limit) : (Py_ssize_t)past->had;
    if (count < 0) return -1;
    memcpy(*rows + count, past->clicked, past->events * 4), memcpy(*weights + count, past->session, past->events * 4);
    return count + (Py_ssize_t)past->events;
}
