/* A user's history on the rows of a bundle (serving/query.py): resolved, sorted by row, aged to the request's moment. */
#include "kernel.h"

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

/* What is said of each event's item, in the order `sorted`, at the day; `exponents` (T, H) is room. */
static void age_all(const Events *of, const Scored *sorted, size_t known, double *exponents, Aged out) {
    for (size_t i = 0; i < known; i++) {
        size_t h = (size_t)sorted[i].at;
        double age = of->day - of->last[h] > 0 ? of->day - of->last[h] : 0;
        out.rows[i] = (int32_t)-sorted[i].score, out.order[i] = (int64_t)h, out.counts[i] = of->counts[h];
        out.age[i] = (float)age, out.span[i] = (float)(of->last[h] - of->first[h]);
        for (size_t t = 0; t < of->kinds; t++) exponents[t * known + i] = -age / of->taus[t];
    }
    exps(exponents, known * of->kinds);
    for (size_t t = 0; t < of->kinds; t++)
        for (size_t i = 0; i < known; i++)
            out.decayed[t * known + i] = (float)((double)of->decayed[(size_t)sorted[i].at * of->kinds + t] * exponents[t * known + i]);
}

/* Whether a state says of the h-th item what it can: times and counts are numbers, and nothing was had less than not at all. */
static int sane(const Events *of, size_t h) {
    int sane = isfinite(of->last[h]) && isfinite(of->first[h]) && of->counts[h] >= 0 && isfinite(of->counts[h]);
    for (size_t t = 0; t < of->kinds; t++) sane = sane && of->decayed[h * of->kinds + t] >= 0 && isfinite(of->decayed[h * of->kinds + t]);
    return sane;
}

ptrdiff_t history(Index index, const uint64_t *keys, size_t count, const Events *of, Aged out) {
    Scored *found = kept_memory(KEPT_FOUND, (count + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (count + 1) * sizeof(Scored));
    double *exponents = kept_memory(KEPT_SUMS, (count + 1) * of->kinds * 8);
    size_t known = 0;
    if (!found || !spare || !exponents) return NO_MEMORY;
    rows_of(index, keys, count, out.rows); /* of the keys first, then in their own order */
    for (size_t h = 0; h < count; h++)
        if (out.rows[h] >= 0 && sane(of, h)) found[known++] = (Scored){(float)-out.rows[h], (int32_t)h};
    age_all(of, falling(found, spare, known), known, exponents, out);
    return (ptrdiff_t)known;
}

int steps_are_sound(Index index, size_t steps) {
    if (steps != STEPS + 1 || index.steps[0] != 0 || (size_t)index.steps[STEPS] != index.items) return 0;
    for (size_t s = 0; s < STEPS; s++)
        if (index.steps[s] > index.steps[s + 1]) return 0;
    return 1;
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

/* The `limit` heaviest, ties by position, in the order they stand in; `weights` and `rows` hold all of them before. NaN is not heavy: fewer may be left. */
static ptrdiff_t heaviest(float *weights, int32_t *rows, size_t count, size_t limit) {
    Scored *best;
    uint8_t *kept = kept_memory(KEPT_KINDS, count);
    ptrdiff_t found = kept ? best_of(weights, count, limit, -INFINITY, NULL, 0, &best) : NO_MEMORY;
    if (found < 0) return NO_MEMORY;
    memset(kept, 0, count);
    for (size_t i = 0; i < limit && i < (size_t)found; i++) kept[best[i].at] = 1;
    size_t left = 0;
    for (size_t h = 0; h < count; h++)
        if (kept[h]) weights[left] = weights[h], rows[left++] = rows[h];
    return (ptrdiff_t)left;
}

ptrdiff_t weigh(const Past *past, int logged, size_t limit, int32_t **rows, float **weights) {
    size_t room = past->had + past->events + 1;
    char *memory = kept_memory(KEPT_PAST, room * 8);
    if (!memory) return NO_MEMORY;
    *weights = (float *)memory, *rows = (int32_t *)(memory + room * 4);
    mix_counts(past, *weights);
    memcpy(*rows, past->rows, past->had * 4);
    if (logged) {
        for (size_t h = 0; h < past->had; h++) (*weights)[h] += 1.0f;
        logs(*weights, past->had);
    }
    ptrdiff_t count = limit && past->had > limit ? heaviest(*weights, *rows, past->had, limit) : (ptrdiff_t)past->had;
    if (count < 0) return NO_MEMORY;
    memcpy(*rows + count, past->clicked, past->events * 4), memcpy(*weights + count, past->session, past->events * 4);
    return count + (ptrdiff_t)past->events;
}
