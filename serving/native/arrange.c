/* The end of a request where it is plain (serving/rules/arrange.py): the rules' walk over a ranked list for one page. */
#include "kernel.h"

static int32_t group(const Walk *w, int cap, int32_t at) { return w->caps[cap].codes[w->rows[at]]; }

/* The first cap that has no room for one more beside the page, its position `without` left out; -1: there is room. */
static int full(const Walk *w, const int32_t *page, size_t count, int32_t without, int32_t at) {
    for (int c = 0; c < (int)w->cap_count; c++) {
        int32_t code = group(w, c, at);
        int64_t same = 0;
        for (size_t p = 0; code && p < count; p++) same += page[p] != without && group(w, c, page[p]) == code;
        if (code && same >= w->caps[c].most) return c;
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

static int barred(const Walk *w, const uint8_t *flags, unsigned bits) {
    for (size_t i = 0; i < w->count; i++)
        if (flags[w->rows[i]] & bits) return 1;
    return 0;
}

int first_page(Walk *w, const uint8_t *flags, unsigned bits, const Floor *floors, Met *met, size_t count) {
    if (barred(w, flags, bits) || !fill_page(w)) return 0;
    for (size_t f = 0; f < count; f++) {
        met[f].count = meet_floor(w, floors[f].new, floors[f].least, &met[f].lacking);
        memcpy(met[f].added, w->added + w->adds - met[f].count, met[f].count * sizeof *w->added);
    }
    return 1;
}
