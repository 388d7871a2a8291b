/* The layers of a ranker, for one kind of register: rank.c includes this once for each, with the words it is written in.
 *
 * KIND(name) the name for this kind, ON which instructions, Line a register of LANES floats, TALL candidates at once, and what is done with registers.
 */

enum { KIND(ACROSS) = PANEL / LANES, KIND(BLOCK) = 4 * TALL };

/* One panel for TALL candidates: out[t][n] = sum over k of in[t][k] * weights[k][n], then what is added last. All sums stay in registers. */
ON static inline __attribute__((always_inline)) void KIND(panel)(const Layer *l, size_t panel, int first, int across, size_t c, const float *in, float *out) {
    Line sums[TALL][PANEL / LANES];
    const float *weights = l->weights + panel * PANEL * l->inputs;
    if (first && panel % 2 == 0) /* what the next block needs is fetched a few lines at a time */
        for (int t = 0; t < TALL; t++) __builtin_prefetch(l->ahead[c + (size_t)t] + panel * PANEL);
#pragma GCC unroll 16
    for (int t = 0; t < TALL; t++)
#pragma GCC unroll 2
        for (int r = 0; r < across; r++) sums[t][r] = NOTHING;
    for (size_t k = 0; k < l->inputs; k++, weights += PANEL) {
        Line of[PANEL / LANES];
#pragma GCC unroll 2
        for (int r = 0; r < across; r++) of[r] = LOAD(weights + r * LANES);
#pragma GCC unroll 16
        for (int t = 0; t < TALL; t++) {
            Line value = SPREAD(in[(size_t)t * l->in_width + k]);
#pragma GCC unroll 2
            for (int r = 0; r < across; r++) sums[t][r] = FUSED(of[r], value, sums[t][r]);
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < TALL; t++)
#pragma GCC unroll 2
        for (int r = 0; r < across; r++) {
            size_t n = panel * PANEL + (size_t)(r * LANES);
            Line base = first ? ADD(WIDEN(l->halves[c + (size_t)t] + n), LOAD(l->last + n)) : LOAD(l->last + n), value = ADD(sums[t][r], base);
            STORE(out + (size_t)t * l->out_width + n, l->bent ? MOST(value, NOTHING) : value);
        }
}

/* A panel at a time for all candidates of a block, so that its weights stay near. */
ON static void KIND(layer)(const Layer *l, const float *in, float *out) {
    for (size_t p = 0; p * PANEL < l->outputs; p++)
        for (size_t c = 0; c < KIND(BLOCK); c += TALL) {
            const float *from = in + c * l->in_width;
            float *to = out + c * l->out_width;
            if (l->halves) KIND(panel)(l, p, 1, KIND(ACROSS), c, from, to);
            else if (l->outputs - p * PANEL > LANES) KIND(panel)(l, p, 0, KIND(ACROSS), c, from, to);
            else KIND(panel)(l, p, 0, 1, c, from, to);
        }
}

/* Where the item halves of a block are; beyond the end those of the last candidate once more. */
ON static void KIND(find)(const Ranker *r, size_t begin, const uint16_t **halves) {
    for (size_t b = 0; b < KIND(BLOCK); b++) halves[b] = r->halves + (size_t)r->rows[place_of(r, begin + b)] * (size_t)r->sizes[1];
}

/* Cross features of a block, standardised and clipped. */
ON static void KIND(standardise)(const Ranker *r, size_t begin, float *features) {
    size_t inputs = (size_t)r->sizes[0];
    for (size_t b = 0; b < KIND(BLOCK); b++, features += inputs) {
        const float *cross = r->cross + place_of(r, begin + b) * inputs;
        for (size_t f = 0; f < inputs; f++) {
            float value = (cross[f] - r->mean[f]) * r->scale[f];
            value = value > -r->clip ? value : -r->clip;
            features[f] = value < r->clip ? value : r->clip;
        }
    }
}

ON static void KIND(rank)(const Ranker *r, float *room, float *out) {
    const uint16_t *halves[2][KIND(BLOCK)];
    size_t last = (size_t)r->sizes[r->layers], turn = 0;
    KIND(find)(r, 0, halves[0]);
    for (size_t begin = 0; begin < r->count; begin += KIND(BLOCK), turn ^= 1) {
        float *in = room, *next = room + KIND(BLOCK) * WIDEST;
        KIND(find)(r, begin + KIND(BLOCK), halves[turn ^ 1]);
        KIND(standardise)(r, begin, in);
        Layer now = {r->panels, r->user, halves[turn], halves[turn ^ 1], (size_t)r->sizes[0], (size_t)r->sizes[1], (size_t)r->sizes[0], whole((size_t)r->sizes[1]), 1};
        for (size_t l = 0; l < r->layers; l++) {
            KIND(layer)(&now, in, next);
            float *swap = in;
            in = next, next = swap;
            if (l + 1 < r->layers) now = layer_after(r, l + 1, now);
        }
        for (size_t b = 0; b < KIND(BLOCK) && begin + b < r->count; b++)
            for (size_t n = 0; n < last; n++) out[(begin + b) * last + n] = in[b * whole(last) + n];
    }
}
