/* The layers of a ranker, for one kind of register: rank.c includes this once for each, with the words it is written in.
 *
 * KIND(name) the name for this kind, ON which instructions, Line a register of LANES floats, TALL candidates at once, and what is done with registers.
 */

enum { KIND(ACROSS) = PANEL / LANES, KIND(BLOCK) = 4 * TALL };

/* One panel for TALL candidates: out[t][n] = sum over k of in[t][k] * weights[k][n], then what is added last. All sums stay in registers. */
ON static inline __attribute__((always_inline)) void KIND(panel)(const Layer *l, size_t panel, int first, int across, size_t c, const float *in, float *out) {
    Line sums[TALL][PANEL / LANES];
    const float *weights = l->weights + panel * PANEL * l->inputs;
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

/* Cross features, standardised and clipped, and the item halves of a block; beyond the end the last candidate once more. */
ON static void KIND(lay_out)(const Ranker *r, size_t begin, const uint16_t **halves, float *features) {
    size_t inputs = (size_t)r->sizes[0], width = (size_t)r->sizes[1];
    for (size_t b = 0; b < KIND(BLOCK); b++, features += inputs) {
        size_t c = begin + b < r->count ? begin + b : r->count - 1, ahead = c + KIND(BLOCK) < r->count ? c + KIND(BLOCK) : r->count - 1;
        for (size_t d = 0; d < width; d += 32) __builtin_prefetch(r->halves + (size_t)r->rows[place_of(r, ahead)] * width + d);
        halves[b] = r->halves + (size_t)r->rows[place_of(r, c)] * width;
        const float *cross = r->cross + place_of(r, c) * inputs;
        for (size_t f = 0; f < inputs; f++) {
            float value = (cross[f] - r->mean[f]) * r->scale[f];
            value = value > -r->clip ? value : -r->clip;
            features[f] = value < r->clip ? value : r->clip;
        }
    }
}

ON static void KIND(judge)(const Ranker *r, float *room, float *out) {
    const uint16_t *halves[KIND(BLOCK)];
    size_t last = (size_t)r->sizes[r->layers];
    for (size_t begin = 0; begin < r->count; begin += KIND(BLOCK)) {
        float *in = room, *next = room + KIND(BLOCK) * WIDEST;
        KIND(lay_out)(r, begin, halves, in);
        Layer now = {r->panels, r->user, halves, (size_t)r->sizes[0], (size_t)r->sizes[1], (size_t)r->sizes[0], whole((size_t)r->sizes[1]), 1};
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
