/* One pool from the lists of the sources (serving/retrieval/fusion.py). */
#include "kernel.h"

enum { AHEAD = 16 };

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
            r.kept[slot] |= j < list->promised;
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
static size_t fill(const Lists *all, Room r, Pooled out) {
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

/* 0: no memory. */
static int make_room(size_t items, size_t listed, Room *r) {
    char *memory = kept_memory(KEPT_SUMS, (listed + 1) * (8 + 4 + 4 + 4 + 2 + 2 + 1));
    *r = (Room){.slots = kept_zeros(KEPT_SLOTS, (items + 1) * 2), .found = kept_memory(KEPT_FOUND, (listed + 1) * sizeof(Scored)), .spare = kept_memory(KEPT_SPARE, (listed + 1) * sizeof(Scored))};
    if (!memory || !r->slots || !r->found || !r->spare) return 0;
    r->sums = (double *)memory;
    r->scores = (float *)(r->sums + listed + 1), r->terms = r->scores + listed + 1, r->rows = (int32_t *)(r->terms + listed + 1);
    r->met = (uint16_t *)(r->rows + listed + 1), r->place = r->met + listed + 1, r->kept = (uint8_t *)(r->place + listed + 1);
    return 1;
}

ptrdiff_t fuse(const Lists *all, Pooled out) {
    Room r;
    if (!make_room(all->items, all->listed, &r)) return NO_MEMORY;
    size_t count = fill(all, r, out);
    for (size_t s = 0; s < all->sources; s++) read_scores(&all->lists[s], out.rows, count, all->sources, out.ranks + s, out.scores + s, (uint32_t *)r.found);
    return (ptrdiff_t)count;
}
