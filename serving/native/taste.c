/* What the rankers are told (serving/features.py, serving/taste.py): tables of a user by code, and the rows of features read from them. */
#include "kernel.h"

enum { OWN = 10, TASTE = 14, LEVELS = 3 };

/* Tables by category code: as they are, and those whose logarithm is taken between the two calls. */
typedef struct {
    float share, recent, usual, session;
} Plain;
typedef struct {
    float items, events, age, due;
} Logged;

/* Sums while a table is made; all zero before and after. */
typedef struct {
    double own, late, paid, known, events, session;
    int32_t met;
} Sums;

typedef struct {
    const int32_t *category, *brand, *rows;
    const float *price;
    size_t items, count, had; /* of rows: all, and those of the history, which come first */
} World;

typedef struct {
    const float *taste, *recent, *counts, *age, *span, *session;
    double totals[2];
    float never, limit;
} Told;

static float root_share(double sum, double total) { return sqrtf((float)(sum / total)); }

static void add_categories(World w, const Told *told, Sums *sums, Logged *logged) {
    for (size_t n = 0; n < w.count; n++) {
        const int32_t *path = w.category + (size_t)w.rows[n] * LEVELS;
        for (int level = 0; level < LEVELS; level++) {
            Sums *of = &sums[path[level]];
            of->own += (double)told->taste[n], of->late += (double)told->recent[n], of->met = 1;
            if (n < w.had) logged[path[level]].items += 1;
        }
        float price = w.price[w.rows[n]];
        if (isfinite(price)) sums[path[1]].known += (double)told->taste[n], sums[path[1]].paid += (double)(told->taste[n] * price);
        if (n >= w.had) {
            sums[path[2]].session += (double)told->session[n - w.had];
            continue;
        }
        Logged *narrow = &logged[path[2]]; /* until all are in: age the newest, due the oldest */
        sums[path[2]].events += (double)told->counts[n];
        if (told->age[n] < narrow->age) narrow->age = told->age[n];
        if (told->age[n] + told->span[n] > narrow->due) narrow->due = told->age[n] + told->span[n];
    }
}

static void end_category(const Told *told, Sums *of, Plain *plain, Logged *logged) {
    float events = (float)of->events, gap = (logged->due - logged->age) / (events - 1 > 1 ? events - 1 : 1), due = logged->age / (gap > 1 ? gap : 1);
    plain->share = root_share(of->own, told->totals[0]), plain->recent = root_share(of->late, told->totals[1]);
    if (of->known > 0) plain->usual = (float)(of->paid / (of->known > 1e-6 ? of->known : 1e-6));
    plain->session = (float)of->session;
    logged->events = events, logged->due = events > 1 ? (due < told->limit ? due : told->limit) : 0;
}

static void categories(World w, const Told *told, size_t codes, Sums *sums, Plain *plain, Logged *logged) {
    for (size_t c = 0; c < codes; c++) plain[c] = (Plain){0, 0, NAN, 0}, logged[c] = (Logged){0, 0, told->never, 0};
    add_categories(w, told, sums, logged);
    for (size_t n = 0; n < w.count; n++)
        for (int level = 0; level < LEVELS; level++) {
            int32_t code = w.category[(size_t)w.rows[n] * LEVELS + (size_t)level];
            if (!sums[code].met) continue;
            if (code) end_category(told, &sums[code], &plain[code], &logged[code]);
            else logged[0] = (Logged){0, 0, told->never, 0};
            memset(&sums[code], 0, sizeof(Sums));
        }
}

static void brands(World w, const Told *told, size_t codes, Sums *sums, float *table) {
    memset(table, 0, codes * 2 * 4);
    for (size_t n = 0; n < w.count; n++) {
        Sums *of = &sums[w.brand[w.rows[n]]];
        of->own += (double)told->taste[n], of->met = 1;
        if (n >= w.had) of->session += (double)told->session[n - w.had];
    }
    for (size_t n = 0; n < w.count; n++) {
        int32_t code = w.brand[w.rows[n]];
        if (!sums[code].met) continue;
        if (code) table[code] = root_share(sums[code].own, told->totals[0]), table[codes + (size_t)code] = (float)sums[code].session;
        memset(&sums[code], 0, sizeof(Sums));
    }
}

static int fits(World w, size_t codes, size_t brand_codes) {
    int wrong = 0;
    for (size_t n = 0; n < w.count; n++) {
        if (w.rows[n] < 0 || (size_t)w.rows[n] >= w.items) return 0;
        for (int level = 0; level < LEVELS; level++) wrong |= (size_t)w.category[(size_t)w.rows[n] * LEVELS + (size_t)level] >= codes;
        wrong |= (size_t)w.brand[w.rows[n]] >= brand_codes;
    }
    return !wrong;
}

/* tables(category int32 (I, 3), brand int32 (I,), price float32 (I,), rows int32 (H + E,), taste float32 (H + E,), recent float32 (H + E,),
 *        counts float32 (H,), age float32 (H,), span float32 (H,), session float32 (E,), total, total, never, limit,
 *        by category float32 (2, K, 4) out, by brand float32 (2, B) out): before logarithms are taken */
PyObject *py_tables(PyObject *self, PyObject *args) {
    Py_buffer v[12] = {{0}};
    Told told;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*y*y*ddffw*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8], &v[9], &told.totals[0], &told.totals[1], &told.never, &told.limit, &v[10], &v[11])) return NULL;
    told.taste = v[4].buf, told.recent = v[5].buf, told.counts = v[6].buf, told.age = v[7].buf, told.span = v[8].buf, told.session = v[9].buf;
    World w = {v[0].buf, v[1].buf, v[3].buf, v[2].buf, (size_t)v[1].len / 4, (size_t)v[3].len / 4, (size_t)v[6].len / 4};
    size_t codes = (size_t)v[10].len / (2 * sizeof(Plain)), brand_codes = (size_t)v[11].len / 8, most = codes > brand_codes ? codes : brand_codes;
    size_t all = w.count * 4, own = w.had * 4;
    int wrong = (size_t)v[0].len != w.items * 4 * LEVELS || (size_t)v[2].len != w.items * 4 || w.had > w.count || (size_t)v[4].len != all || (size_t)v[5].len != all ||
                (size_t)v[7].len != own || (size_t)v[8].len != own || (size_t)v[9].len != all - own || !codes || !brand_codes || !fits(w, codes, brand_codes);
    Sums *sums = kept_zeros(KEPT_TABLE, most * sizeof(Sums));
    if (sums && !wrong) {
        categories(w, &told, codes, sums, v[10].buf, (Logged *)v[10].buf + codes);
        brands(w, &told, brand_codes, sums, v[11].buf);
    }
    give_back((Given){v, 12});
    if (!sums) return NULL;
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected rows of a catalogue of %zu items, and a weight for each of %zu", w.items, w.count);
    Py_RETURN_NONE;
}

typedef struct {
    const int32_t *rows, *history, *clicked, *pairs; /* (C,), (H,) ascending, (E,), (I,) codes of brand and category together */
    const float *fused, *ranks, *scores, *sizes, *own, *by_brand, *lifts, *taste;
    const Plain *plain;
    const Logged *logged;
    const uint8_t *seen, *display, *mailer;
    size_t count, sources, codes, brand_codes, events;
    float best, offset;
} Asked;

static void own_features(const Asked *a, size_t had, size_t c, float *out) {
    size_t low = 0, high = had;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (a->history[middle] < a->rows[c]) low = middle + 1;
        else high = middle;
    }
    if (low < had && a->history[low] == a->rows[c])
        for (int f = 0; f < OWN; f++) out[f] = a->own[(size_t)f * had + low];
}

static void taste_features(const Asked *a, World w, const double *of_pair, const double *of_category, int32_t row, float *out) {
    const int32_t *path = w.category + (size_t)row * LEVELS;
    size_t middle = (size_t)path[1];
    Plain narrow = a->plain[path[2]], wider = a->plain[middle];
    Logged counted = a->logged[path[2]];
    out[0] = narrow.share, out[1] = narrow.recent, out[2] = counted.items;
    out[3] = wider.share, out[4] = wider.recent, out[5] = a->logged[middle].items;
    out[6] = a->plain[path[0]].share;
    out[7] = counted.events, out[8] = counted.age, out[9] = counted.due;
    out[10] = a->by_brand[w.brand[row]];
    if (out[10] > 0 && out[3] > 0) out[11] = (float)(of_pair[a->pairs[row]] / (of_category[middle] > 1e-6 ? of_category[middle] : 1e-6));
    float relative = w.price[row] - wider.usual;
    if (isfinite(relative)) out[12] = relative < -3 ? -3 : relative > 3 ? 3 : relative, out[13] = 1;
}

static void session_features(const Asked *a, World w, int32_t row, float *out) {
    for (size_t e = 0; e < a->events; e++)
        if (a->clicked[e] == row) out[0] = a->lifts[e];
    out[1] = a->plain[w.category[(size_t)row * LEVELS + 2]].session;
    out[2] = a->by_brand[a->brand_codes + (size_t)w.brand[row]];
}

static void source_features(const Asked *a, size_t c, float *out) {
    size_t s = a->sources;
    const float *ranks = a->ranks + c * s, *scores = a->scores + c * s, *sizes = a->sizes + c * 2 * s;
    float found = 0;
    for (size_t i = 0; i < s; i++) {
        found += isfinite(ranks[i]) ? 1.0f : 0.0f;
        out[3 + i] = copysignf(sizes[i], scores[i]), out[3 + s + i] = copysignf(sizes[s + i], scores[i]);
        out[3 + 2 * s + i] = a->offset / (ranks[i] + a->offset);
    }
    out[0] = a->fused[c] * a->offset, out[1] = a->fused[c] / a->best, out[2] = found;
}

/* `of_pair`, `of_category`: weights by code, all zero before and after. */
static void write_features(const Asked *a, World w, double *of_pair, double *of_category, float *out) {
    size_t width = OWN + TASTE + 2 + 3 + 3 + 3 * a->sources;
    memset(out, 0, a->count * width * 4);
    for (size_t n = 0; n < w.count; n++) {
        of_pair[a->pairs[w.rows[n]]] += (double)a->taste[n];
        of_category[w.category[(size_t)w.rows[n] * LEVELS + 1]] += (double)a->taste[n];
    }
    for (size_t c = 0; c < a->count; c++, out += width) {
        int32_t row = a->rows[c];
        if (c + 8 < a->count) {
            __builtin_prefetch(w.category + (size_t)a->rows[c + 8] * LEVELS), __builtin_prefetch(w.brand + a->rows[c + 8]);
            __builtin_prefetch(w.price + a->rows[c + 8]);
            if (a->display) __builtin_prefetch(a->display + a->rows[c + 8]), __builtin_prefetch(a->mailer + a->rows[c + 8]);
        }
        if (a->seen[c]) own_features(a, w.had, c, out);
        if (w.count) taste_features(a, w, of_pair, of_category, row, out + OWN);
        if (a->display) out[OWN + TASTE] = a->display[row] != 0, out[OWN + TASTE + 1] = a->mailer[row] != 0;
        if (a->events) session_features(a, w, row, out + OWN + TASTE + 2);
        source_features(a, c, out + OWN + TASTE + 5);
    }
    for (size_t n = 0; n < w.count; n++) of_pair[a->pairs[w.rows[n]]] = of_category[w.category[(size_t)w.rows[n] * LEVELS + 1]] = 0;
}

/* sizes(scores float32 (C, S), relative, out float32 (C, 2 S)): the size of each, and beside the greatest of its source; before logarithms */
PyObject *py_sizes(PyObject *self, PyObject *args) {
    Py_buffer v[2] = {{0}};
    Py_ssize_t sources;
    float relative, best[64] = {0};
    if (!PyArg_ParseTuple(args, "y*nfw*", &v[0], &sources, &relative, &v[1])) return NULL;
    size_t s = (size_t)sources, count = sources > 0 ? (size_t)v[0].len / 4 / s : 0;
    int wrong = sources < 1 || sources > 64 || (size_t)v[0].len != count * s * 4 || v[1].len != 2 * v[0].len;
    const float *scores = v[0].buf;
    float *out = v[1].buf;
    for (size_t c = 0; c < count && !wrong; c++)
        for (size_t i = 0; i < s; i++) best[i] = fabsf(scores[c * s + i]) > best[i] ? fabsf(scores[c * s + i]) : best[i];
    for (size_t i = 0; i < 64; i++) best[i] = relative / (best[i] > 1e-9f ? best[i] : 1e-9f);
    for (size_t c = 0; c < count && !wrong; c++)
        for (size_t i = 0; i < s; i++) out[2 * c * s + i] = fabsf(scores[c * s + i]), out[(2 * c + 1) * s + i] = fabsf(scores[c * s + i]) * best[i];
    give_back((Given){v, 2});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected scores of 1 to 64 sources, got %zd", sources);
    Py_RETURN_NONE;
}

static int below(const int32_t *codes, const int32_t *rows, size_t count, size_t limit) {
    int wrong = 0;
    for (size_t n = 0; n < count; n++) wrong |= codes[rows[n]] < 0 || (size_t)codes[rows[n]] >= limit;
    return !wrong;
}

/* features(category, brand, price as `tables`, pairs int32 (I,), how many, rows int32 (H + E,), history rows int32 (H,), session rows int32 (E,), taste float32 (H + E,), own float32 (10, H),
 *          by category float32 (2, K, 4), by brand float32 (2, B), session lifts float32 (E,), candidate rows int32 (C,), seen uint8 (C,),
 *          fused float32 (C,), ranks float32 (C, S), scores float32 (C, S), sizes float32 (C, 2 S), display uint8 (I,) or None,
 *          mailer uint8 (I,) or None, best, offset, out float32 (C, Fx)) */
PyObject *py_features(PyObject *self, PyObject *args) {
    enum { CATEGORY, BRAND, PRICE, PAIRS, ROWS, HISTORY, CLICKED, WEIGHTS, OWNED, TABLE, BRANDS, LIFTS, ASKED, SEEN, FUSED, RANKS, SCORES, SIZES, DISPLAY, MAILER, OUT, ALL };
    Py_buffer v[ALL] = {{0}};
    float best, offset;
    Py_ssize_t pairs;
    if (!PyArg_ParseTuple(args, "y*y*y*y*ny*y*y*y*y*y*y*y*y*y*y*y*y*y*z*z*ffw*", &v[0], &v[1], &v[2], &v[3], &pairs, &v[4], &v[5], &v[6], &v[7], &v[8], &v[9], &v[10], &v[11],
                          &v[12], &v[13], &v[14], &v[15], &v[16], &v[17], &v[18], &v[19], &best, &offset, &v[20])) return NULL;
    size_t items = (size_t)v[BRAND].len / 4, had = (size_t)v[HISTORY].len / 4, events = (size_t)v[CLICKED].len / 4, count = (size_t)v[ASKED].len / 4;
    size_t sources = count ? (size_t)v[RANKS].len / 4 / count : 0, codes = (size_t)v[TABLE].len / (2 * sizeof(Plain)), brand_codes = (size_t)v[BRANDS].len / 8;
    World w = {v[CATEGORY].buf, v[BRAND].buf, v[ROWS].buf, v[PRICE].buf, items, had + events, had};
    Asked a = {v[ASKED].buf, v[HISTORY].buf, v[CLICKED].buf, v[PAIRS].buf, v[FUSED].buf, v[RANKS].buf, v[SCORES].buf, v[SIZES].buf, v[OWNED].buf, v[BRANDS].buf,
               v[LIFTS].buf, v[WEIGHTS].buf, v[TABLE].buf, (const Logged *)v[TABLE].buf + codes, v[SEEN].buf, v[DISPLAY].buf, v[MAILER].buf, count, sources, codes,
               brand_codes, events, best, offset};
    int wrong = (size_t)v[CATEGORY].len != items * 4 * LEVELS || (size_t)v[PRICE].len != items * 4 || (size_t)v[ROWS].len != (had + events) * 4 ||
                v[WEIGHTS].len != v[ROWS].len || (size_t)v[OWNED].len != had * OWN * 4 || v[LIFTS].len != v[CLICKED].len || (size_t)v[SEEN].len != count ||
                v[FUSED].len != v[ASKED].len || v[SCORES].len != v[RANKS].len || v[SIZES].len != 2 * v[RANKS].len || !v[DISPLAY].buf != !v[MAILER].buf ||
                (v[DISPLAY].buf && ((size_t)v[DISPLAY].len != items || (size_t)v[MAILER].len != items)) ||
                (size_t)v[OUT].len != count * (OWN + TASTE + 8 + 3 * sources) * 4 || !codes || !brand_codes;
    World asked = {w.category, w.brand, a.rows, w.price, items, count, count};
    wrong = wrong || !fits(w, codes, brand_codes) || !fits(asked, codes, brand_codes);
    wrong = wrong || (size_t)v[PAIRS].len != items * 4 || pairs < 0 || !below(a.pairs, w.rows, w.count, (size_t)pairs) || !below(a.pairs, a.rows, count, (size_t)pairs);
    double *of_pair = wrong ? NULL : kept_zeros(KEPT_PAIRS, ((size_t)pairs + 1) * 8), *of_category = wrong ? NULL : kept_zeros(KEPT_TABLE, (codes + 1) * sizeof(Sums));
    if (of_pair && of_category) write_features(&a, w, of_pair, of_category, v[OUT].buf);
    give_back((Given){v, ALL});
    if (!wrong && (!of_pair || !of_category)) return NULL;
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected %zu candidates of a catalogue of %zu items, with all that is told of them", count, items);
    Py_RETURN_NONE;
}

/* own(logits float32 (C, 2), seen uint8 (C,), lifts float32 (C,) or None, out float64 (C,)): the logit of an item's own head with its lift, negated */
PyObject *py_own(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*z*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t count = (size_t)v[1].len;
    const float *logits = v[0].buf, *lifts = v[2].buf;
    int wrong = (size_t)v[0].len != count * 8 || (size_t)v[3].len != count * 8 || (lifts && (size_t)v[2].len != count * 4);
    for (size_t c = 0; c < count && !wrong; c++) {
        float own = logits[2 * c + (((const uint8_t *)v[1].buf)[c] ? 0 : 1)];
        ((double *)v[3].buf)[c] = -(double)(lifts ? own + lifts[c] : own);
    }
    give_back((Given){v, 4});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected two logits of each of %zu candidates", count);
    Py_RETURN_NONE;
}

/* worth(exponentials float64 (C,), seen uint8 (C,), repeat, discover, out float32 (C,)): weight / (1 + exponential) */
PyObject *py_worth(PyObject *self, PyObject *args) {
    Py_buffer v[3] = {{0}};
    double repeat, discover;
    if (!PyArg_ParseTuple(args, "y*y*ddw*", &v[0], &v[1], &repeat, &discover, &v[2])) return NULL;
    size_t count = (size_t)v[1].len;
    int wrong = (size_t)v[0].len != count * 8 || (size_t)v[2].len != count * 4;
    for (size_t c = 0; c < count && !wrong; c++)
        ((float *)v[2].buf)[c] = (float)((((const uint8_t *)v[1].buf)[c] ? repeat : discover) / (1.0 + ((const double *)v[0].buf)[c]));
    give_back((Given){v, 3});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected an exponential of each of %zu candidates", count);
    Py_RETURN_NONE;
}
