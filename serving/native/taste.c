/* What the rankers are told (serving/ranking/features.py, affinity.py): a user's tables by code, and the rows of features read from them.
 *
 * A user touches a few hundred of thousands of codes, so the tables have a place for each of those alone; place 0 stands for all others.
 */
#include "kernel.h"

enum { OWN = TAUS + 6, OWN_LOGS = TAUS + 4, TASTE = 14, PLAN = 2, SESSION = 3, FUSION = 3, AHEAD = 16 };

/* Sums of a category while its tables are made. */
typedef struct {
    double own, late, middle, paid, known, events, session;
} Sums;

typedef struct {
    float share, recent, usual;
} Plain;

typedef struct {
    float items, events, age, due;
} Logged;

/* `slots` and `of_pair` are by code, all zero before and after; the others by place. */
typedef struct {
    int32_t *category_slots, *brand_slots;
    double *of_pair;
    Sums *sums;
    Plain *plain;
    Logged *logged;
    float *session, *own; /* (places,); (H, OWN_LOGS) */
    double *brand_own;
    float *brand_share, *brand_session;
    float *lifts, *of_sources; /* (E,) what the session says of each of its rows; (3, C, S) */
    size_t places, brand_places;
} Tables;

static inline int fits(const World *w, const Item *item) {
    int wrong = (size_t)item->brand >= w->brands || (size_t)item->pair >= w->pairs; /* a negative code is beyond all of them */
    for (int level = 0; level < LEVELS; level++) wrong |= (size_t)item->category[level] >= w->categories;
    return !wrong;
}

static inline float weight_of(const User *u, size_t tau, size_t n) { return n < u->had ? u->decayed[tau * u->had + n] : u->session[n - u->had]; }
static float root_share(double sum, double total) { return sqrtf((float)(sum / total)); }

static double total_of(const User *u, size_t tau, float *room) {
    for (size_t n = 0; n < u->had + u->events; n++) room[n] = weight_of(u, tau, n);
    double total = (double)sum_of(room, u->had + u->events);
    return total > 1e-6 ? total : 1e-6;
}

static void log1(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] += 1.0f;
    logs(values, count);
}

static int32_t place_of(const User *u, Tables *t, int32_t code) {
    if (!code || t->category_slots[code]) return t->category_slots[code]; /* code 0, unknown, keeps place 0 */
    size_t place = t->places++;
    t->sums[place] = (Sums){0}, t->plain[place] = (Plain){0, 0, NAN}, t->logged[place] = (Logged){0, 0, u->never, 0};
    return t->category_slots[code] = (int32_t)place;
}

static void add_categories(const User *u, Tables *t) {
    t->places = 1, t->sums[0] = (Sums){0}, t->logged[0] = (Logged){0, 0, u->never, 0};
    for (size_t n = 0; n < u->had + u->events; n++) {
        const Item *item = &u->items[n];
        float taste = weight_of(u, u->taste, n), recent = weight_of(u, u->recent, n);
        int32_t at[LEVELS];
        for (int level = 0; level < LEVELS; level++) {
            Sums *of = &t->sums[at[level] = place_of(u, t, item->category[level])];
            of->own += (double)taste, of->late += (double)recent;
            if (n < u->had) t->logged[at[level]].items += 1;
        }
        Sums *middle = &t->sums[at[1]], *narrow = &t->sums[at[2]];
        Logged *rhythm = &t->logged[at[2]]; /* until all are in: age the newest, due the oldest */
        middle->middle += (double)taste;
        if (isfinite(item->price)) middle->known += (double)taste, middle->paid += (double)(taste * item->price);
        if (n >= u->had) {
            narrow->session += (double)u->session[n - u->had];
            continue;
        }
        narrow->events += (double)u->counts[n];
        if (u->age[n] < rhythm->age) rhythm->age = u->age[n];
        if (u->age[n] + u->span[n] > rhythm->due) rhythm->due = u->age[n] + u->span[n];
    }
}

static void end_categories(const User *u, const double *totals, Tables *t) {
    for (size_t p = 1; p < t->places; p++) {
        const Sums *of = &t->sums[p];
        Logged *logged = &t->logged[p];
        float events = (float)of->events, gap = (logged->due - logged->age) / (events - 1 > 1 ? events - 1 : 1), due = logged->age / (gap > 1 ? gap : 1);
        t->plain[p].share = root_share(of->own, totals[0]), t->plain[p].recent = root_share(of->late, totals[1]);
        if (of->known > 0) t->plain[p].usual = (float)(of->paid / (of->known > 1e-6 ? of->known : 1e-6));
        t->session[p] = (float)of->session;
        logged->events = events, logged->due = events > 1 ? (due < u->limit ? due : u->limit) : 0;
    }
    t->plain[0] = (Plain){0, 0, NAN}, t->logged[0] = (Logged){0, 0, u->never, 0}, t->session[0] = 0;
    log1((float *)t->logged, t->places * 4);
    if (u->events) log1(t->session, t->places);
}

static void brands(const User *u, double total, Tables *t) {
    double *session = t->brand_own + u->had + u->events + 1;
    t->brand_places = 1, t->brand_own[0] = session[0] = 0;
    for (size_t n = 0; n < u->had + u->events; n++) {
        int32_t code = u->items[n].brand;
        if (code && !t->brand_slots[code]) {
            t->brand_own[t->brand_places] = session[t->brand_places] = 0;
            t->brand_slots[code] = (int32_t)t->brand_places++;
        }
        t->brand_own[t->brand_slots[code]] += (double)weight_of(u, u->taste, n);
        if (n >= u->had) session[t->brand_slots[code]] += (double)u->session[n - u->had];
    }
    for (size_t p = 0; p < t->brand_places; p++) t->brand_share[p] = p ? root_share(t->brand_own[p], total) : 0, t->brand_session[p] = p ? (float)session[p] : 0;
    if (u->events) log1(t->brand_session, t->brand_places);
}

/* How often, how lately and how regularly each item was had: logarithms of the decayed counts, count, age, gap, and how due it is. */
static void own_items(const User *u, float *out) {
    for (size_t h = 0; h < u->had; h++, out += OWN_LOGS) {
        float more = u->counts[h] - 1, gap = u->span[h] / (more > 1 ? more : 1), due = u->age[h] / (gap > 1 ? gap : 1);
        for (size_t tau = 0; tau < TAUS; tau++) out[tau] = u->decayed[tau * u->had + h];
        out[TAUS] = u->counts[h], out[TAUS + 1] = u->age[h], out[TAUS + 2] = gap;
        out[TAUS + 3] = u->counts[h] < 2 ? 0 : due < u->limit ? due : u->limit;
    }
    log1(out - u->had * OWN_LOGS, u->had * OWN_LOGS);
}

static void session_items(const User *u, float *lifts) {
    for (size_t e = 0; e < u->events; e++) {
        double sum = 0;
        for (size_t other = 0; other < u->events; other++) sum += u->clicked[other] == u->clicked[e] ? (double)u->session[other] : 0;
        lifts[e] = (float)sum;
    }
    log1(lifts, u->events);
}

static void tables(const User *u, float *room, Tables *t) {
    double totals[2] = {total_of(u, u->taste, room), total_of(u, u->recent, room)};
    add_categories(u, t);
    end_categories(u, totals, t);
    brands(u, totals[0], t);
    own_items(u, t->own);
    session_items(u, t->lifts);
    for (size_t n = 0; n < u->had + u->events; n++) t->of_pair[u->items[n].pair] += (double)weight_of(u, u->taste, n);
}

static void clear(const User *u, Tables *t) {
    for (size_t n = 0; n < u->had + u->events; n++) {
        const Item *item = &u->items[n];
        for (int level = 0; level < LEVELS; level++) t->category_slots[item->category[level]] = 0;
        t->brand_slots[item->brand] = 0, t->of_pair[item->pair] = 0;
    }
}

/* Of every score the logarithm of its size, of every score that of its part of the greatest of its source, of every rank its place: (3, C, S).
 * Eight candidates at a time, so that a source's greatest is beside each of its scores. */
HOT static void sources(const Pool *p, float *out) {
    float best[8 * MOST_SOURCES] = {0};
    size_t s = p->sources, all = p->count * s;
    float *size = out, *part = out + all, *place = out + 2 * all;
    for (size_t begin = 0, end; begin < all; begin = end) {
        end = begin + 8 * s < all ? begin + 8 * s : all;
        for (size_t i = begin; i < end; i++) best[i - begin] = fabsf(p->scores[i]) > best[i - begin] ? fabsf(p->scores[i]) : best[i - begin];
    }
    for (size_t i = s; i < 8 * s; i++) best[i % s] = best[i] > best[i % s] ? best[i] : best[i % s];
    for (size_t i = 0; i < 8 * s; i++) best[i] = i < s ? p->relative / (best[i] > 1e-9f ? best[i] : 1e-9f) : best[i - s];
    for (size_t begin = 0, end; begin < all; begin = end) {
        end = begin + 8 * s < all ? begin + 8 * s : all;
        for (size_t i = begin; i < end; i++) size[i] = fabsf(p->scores[i]) + 1.0f, part[i] = fabsf(p->scores[i]) * best[i - begin] + 1.0f;
    }
    logs(out, 2 * all);
    for (size_t i = 0; i < all; i++) {
        size[i] = copysignf(size[i], p->scores[i]), part[i] = copysignf(part[i], p->scores[i]);
        place[i] = p->offset / (p->ranks[i] + p->offset);
    }
}

static inline void own_features(const User *u, const Tables *t, int32_t row, float *out) {
    size_t low = 0;
    for (size_t left = u->had; left > 1; left -= left / 2) low += u->history[low + left / 2 - 1] < row ? left / 2 : 0;
    if (!u->had || u->history[low] != row) return;
    memcpy(out, t->own + low * OWN_LOGS, OWN_LOGS * 4);
    out[OWN - 2] = u->counts[low] < 2 ? 1.0f : 0.0f, out[OWN - 1] = 1;
}

static inline void taste_features(const Tables *t, const Item *item, const int32_t *at, int32_t brand, float *out) {
    Plain wider = t->plain[at[1]], narrow = t->plain[at[2]];
    Logged counted = t->logged[at[2]];
    out[0] = narrow.share, out[1] = narrow.recent, out[2] = counted.items;
    out[3] = wider.share, out[4] = wider.recent, out[5] = t->logged[at[1]].items;
    out[6] = t->plain[at[0]].share;
    out[7] = counted.events, out[8] = counted.age, out[9] = counted.due;
    out[10] = t->brand_share[brand];
    if (out[10] > 0 && out[3] > 0) {
        double of_category = t->sums[at[1]].middle;
        out[11] = (float)(t->of_pair[item->pair] / (of_category > 1e-6 ? of_category : 1e-6));
    }
    float relative = item->price - wider.usual;
    if (isfinite(relative)) out[12] = relative < -3 ? -3 : relative > 3 ? 3 : relative, out[13] = 1;
}

static inline void session_features(const User *u, const Tables *t, int32_t row, int32_t narrow, int32_t brand, float *out) {
    for (size_t e = 0; e < u->events; e++)
        if (u->clicked[e] == row) out[0] = t->lifts[e];
    out[1] = t->session[narrow], out[2] = t->brand_session[brand];
}

static inline void source_features(const Pool *p, size_t c, float best, const float *of_sources, float *out) {
    size_t s = p->sources, all = p->count * s;
    const float *ranks = p->ranks + c * s, *from = of_sources + c * s;
    float found = 0;
    for (size_t i = 0; i < s; i++) {
        found += ranks[i] < INFINITY ? 1.0f : 0.0f;
        out[FUSION + i] = from[i], out[FUSION + s + i] = from[all + i], out[FUSION + 2 * s + i] = from[2 * all + i];
    }
    out[0] = p->fused[c] * p->offset, out[1] = p->fused[c] / best, out[2] = found;
}

size_t features_width(size_t sources) { return OWN + TASTE + PLAN + SESSION + FUSION + 3 * sources; }

/* Whether all codes are within their tables. */
HOT static int write_features(const World *w, const User *u, const Pool *p, const Tables *t, float *out) {
    static const float nothing[OWN + TASTE + PLAN + SESSION];
    size_t width = features_width(p->sources);
    float best = 1e-9f;
    for (size_t c = 0; c < p->count; c++) best = p->fused[c] > best ? p->fused[c] : best;
    for (size_t c = 0; c < p->count; c++, out += width) {
        int32_t row = p->rows[c], at[LEVELS];
        const Item *item = w->items + row;
        int32_t later = p->rows[c + AHEAD < p->count ? c + AHEAD : c];
        __builtin_prefetch(w->items + later), __builtin_prefetch(&w->items[later].price);
        if (p->display) __builtin_prefetch(p->display + later), __builtin_prefetch(p->mailer + later);
        if (!fits(w, item)) return 0;
        for (int level = 0; level < LEVELS; level++) at[level] = t->category_slots[item->category[level]];
        int32_t brand = t->brand_slots[item->brand];
        memcpy(out, nothing, sizeof nothing);
        if (p->seen[c]) own_features(u, t, row, out);
        if (u->had + u->events) taste_features(t, item, at, brand, out + OWN);
        if (p->display) out[OWN + TASTE] = p->display[row] != 0, out[OWN + TASTE + 1] = p->mailer[row] != 0;
        if (u->events) session_features(u, t, row, at[2], brand, out + OWN + TASTE + PLAN);
        source_features(p, c, best, t->of_sources, out + OWN + TASTE + PLAN + SESSION);
    }
    return 1;
}

/* The user's items side by side. Whether all codes are within their tables. */
static int gather(const World *w, User *u, Item *items) {
    int wrong = 0;
    for (size_t n = 0; n < u->had + u->events; n++) {
        if (n + AHEAD < u->had) __builtin_prefetch(w->items + u->history[n + AHEAD]), __builtin_prefetch(&w->items[u->history[n + AHEAD]].price);
        items[n] = w->items[n < u->had ? u->history[n] : u->clicked[n - u->had]];
        wrong |= !fits(w, &items[n]);
    }
    u->items = items;
    return !wrong;
}

/* Memory for the tables: what is by code, and one piece for what is by place and for the user's items. 0: no memory. */
static int make_room(const World *w, const User *u, const Pool *p, Tables *t, Item **items, float **room) {
    size_t all = u->had + u->events, places = LEVELS * all + 1, brand_places = all + 1;
    size_t doubles = places * sizeof(Sums) + 2 * brand_places * 8;
    size_t floats = places * (sizeof(Plain) + sizeof(Logged) + 4) + (2 * brand_places + u->had * OWN_LOGS + u->events + 3 * p->count * p->sources + all) * 4 + all * sizeof(Item);
    t->category_slots = kept_zeros(KEPT_TABLE, (w->categories + w->brands) * 4);
    t->of_pair = kept_zeros(KEPT_PAIRS, (w->pairs + 1) * 8);
    t->sums = kept_memory(KEPT_SUMS, doubles + floats);
    if (!t->category_slots || !t->of_pair || !t->sums) return 0;
    t->brand_slots = t->category_slots + w->categories;
    t->brand_own = (double *)(t->sums + places);
    t->plain = (Plain *)(t->brand_own + 2 * brand_places), t->logged = (Logged *)(t->plain + places);
    t->session = (float *)(t->logged + places), t->own = t->session + places;
    t->brand_share = t->own + u->had * OWN_LOGS, t->brand_session = t->brand_share + brand_places;
    t->lifts = t->brand_session + brand_places, t->of_sources = t->lifts + u->events;
    *items = (Item *)(t->of_sources + 3 * p->count * p->sources), *room = (float *)(*items + all);
    return 1;
}

int features(const World *w, User *u, const Pool *p, float *out) {
    Tables t = {0};
    Item *held;
    float *room;
    if (!make_room(w, u, p, &t, &held, &room)) return NO_MEMORY;
    if (!gather(w, u, held)) return OUTSIDE;
    tables(u, room, &t);
    sources(p, t.of_sources);
    int sound = write_features(w, u, p, &t, out);
    clear(u, &t);
    return sound ? 0 : OUTSIDE;
}
