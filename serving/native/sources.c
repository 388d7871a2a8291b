/* Sums over the history (serving/retrieval/): votes of its items for their neighbours, offers times the user's lifts. */
#include "kernel.h"

/* What a voter says for each of its neighbours. */
HOT static void say(const int16_t *weights, size_t k, float strength, double *parts) {
    for (size_t j = 0; j < k; j++) parts[j] = (double)((float)weights[j] * strength);
}

/* Adds them up, in order; `parts` (K,) is room. Whether all neighbours are within the table. */
static int add_votes(const Neighbours *t, size_t voter, float strength, double *parts, double *sums) {
    const uint16_t *narrow = t->narrow ? t->narrow + voter * t->k : NULL;
    const int32_t *wide = t->wide ? t->wide + voter * t->k : NULL;
    if (narrow ? !within_narrow(narrow, t->k, t->size) : !within(wide, t->k, t->size)) return 0;
    say(t->weights + voter * t->k, t->k, strength, parts);
    if (narrow)
        for (size_t j = 0; j < t->k; j++) sums[narrow[j]] += parts[j];
    else
        for (size_t j = 0; j < t->k; j++) sums[wide[j]] += parts[j];
    return 1;
}

HOT static void narrowed(const double *sums, size_t count, float *out) {
    for (size_t m = 0; m < count; m++) out[m] = (float)sums[m];
}

static void ask_for(const Neighbours *t, size_t voter) {
    const char *next = t->narrow ? (const char *)(t->narrow + voter * t->k) : (const char *)(t->wide + voter * t->k), *weight = (const char *)(t->weights + voter * t->k);
    for (size_t b = 0; b < t->k * (t->narrow ? 2 : 4); b += 64) __builtin_prefetch(next + b);
    for (size_t b = 0; b < t->k * 2; b += 64) __builtin_prefetch(weight + b);
}

/* Those of the rows that have neighbours, with what they say. */
static size_t voters_of(const Neighbours *t, const int32_t *rows, const float *weights, size_t count, Scored *voters) {
    size_t found = 0;
    for (size_t h = 0; h < count; h++) {
        size_t place = (size_t)rows[h] < t->items ? (size_t)t->position_of[rows[h]] : t->size; /* -1 is beyond all of them */
        if (place < t->size) voters[found++] = (Scored){weights[h] * t->scales[place], (int32_t)place};
    }
    return found;
}

ptrdiff_t item_item(const Neighbours *t, const Past *past, size_t limit, Excluded out, size_t n, float *votes, int32_t *rows, float *scores) {
    int32_t *items;
    float *interest;
    ptrdiff_t asked = weigh(past, 1, limit, &items, &interest);
    double *sums = asked < 0 ? NULL : kept_memory(KEPT_SUMS, (t->size + t->k + 1) * 8);
    Scored *voters = sums ? kept_memory(KEPT_FOUND, (size_t)(asked + 1) * sizeof(Scored)) : NULL, *best;
    if (!voters) return NO_MEMORY;
    size_t count = voters_of(t, items, interest, (size_t)asked, voters);
    if (!count) return NOBODY;
    memset(sums, 0, t->size * 8);
    for (size_t h = 0; h < count; h++) {
        if (h + 1 < count) ask_for(t, (size_t)voters[h + 1].at);
        if (!add_votes(t, (size_t)voters[h].at, voters[h].score, sums + t->size, sums)) return OUTSIDE;
    }
    narrowed(sums, t->size, votes);
    ptrdiff_t found = best_but(votes, t->size, n, 0, out, &best);
    if (found > 0) list_out(best, (size_t)found, t->names, rows, scores);
    return found;
}

/* A loop of gathers is as slow: sixteen bits at a time are widened, and the tables of kinds stay in the nearest cache. */
HOT static void lift_all(const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    for (size_t a = 0; a < offers; a++) out[a] = worth[a] * one[first[a]] * other[second[a]];
}

/* What a user goes for. */
typedef struct {
    const int32_t *rows; /* (H,) */
    const float *weights;
    size_t count;
    double total;
} Leaning;

/* Room for what a user's codes are summed up in: `sums` (N,) are all zero before and after, the others (H G,). */
typedef struct {
    double *sums, *bases, *exponents;
    int32_t *touched;
} Tally;

/* (N,) how much more the user goes for each code than everyone does, to its power. */
static void code_lifts(const Offers *of, const Leaning *user, Tally room, float *lifts) {
    size_t met = 0, begin = 0;
    for (size_t g = 0; g < of->groups; begin = (size_t)of->ends[g++]) {
        float without = (float)pow(of->prior / user->total, of->powers[g]);
        for (size_t code = begin; code < (size_t)of->ends[g]; code++) lifts[code] = without;
        for (size_t h = 0; h < user->count; h++) {
            if (!g && h + 16 < user->count) __builtin_prefetch(of->codes + (size_t)user->rows[h + 16] * of->groups);
            int32_t code = of->codes[(size_t)user->rows[h] * of->groups + g];
            if (code < 0 || (size_t)code >= of->size || !(user->weights[h] > 0)) continue;
            if (room.sums[code] == 0) room.exponents[met] = of->powers[g], room.touched[met++] = code;
            room.sums[code] += (double)user->weights[h];
        }
    }
    for (size_t i = 0; i < met; i++) {
        int32_t code = room.touched[i];
        room.bases[i] = (room.sums[code] / (double)of->shares[code] + of->prior) / user->total, room.sums[code] = 0;
    }
    powers(room.bases, room.exponents, met);
    for (size_t i = 0; i < met; i++) lifts[room.touched[i]] = (float)room.bases[i];
}

/* The product of the lifts of each kind's codes; whether all have one. */
static int kind_lifts(const Kinds *kinds, const float *lifts, size_t all, float *out) {
    if (!within(kinds->codes, kinds->groups * kinds->count, all)) return 0;
    for (size_t g = 0; g < kinds->groups; g++)
        for (size_t k = 0; k < kinds->count; k++) {
            float lift = lifts[kinds->codes[g * kinds->count + k]];
            out[k] = g ? out[k] * lift : lift;
        }
    return 1;
}

ptrdiff_t buy_again(const Past *past, const float *factor, size_t known, float usual, size_t n, int32_t *rows, float *scores) {
    int32_t *items;
    float *weights;
    if (weigh(past, 0, 0, &items, &weights) < 0) return NO_MEMORY;
    Scored *found = kept_memory(KEPT_FOUND, (past->had + 1) * sizeof(Scored)), *spare = kept_memory(KEPT_SPARE, (past->had + 1) * sizeof(Scored));
    double *looked_at = kept_memory(KEPT_SUMS, (past->had + 1) * 8);
    if (!found || !spare || !looked_at) return NO_MEMORY;
    memset(looked_at, 0, past->had * 8);
    for (size_t e = 0; e < past->events; e++)
        for (size_t h = 0; h < past->had; h++)
            if (past->rows[h] == past->clicked[e]) looked_at[h] += (double)past->session[e];
    for (size_t h = 0; h < past->had; h++) {
        if (h + 16 < past->had && (size_t)items[h + 16] < known) __builtin_prefetch(factor + items[h + 16]);
        found[h] = (Scored){(weights[h] + (float)looked_at[h]) * ((size_t)items[h] < known ? factor[items[h]] : usual), (int32_t)h};
    }
    n = n < past->had ? n : past->had;
    list_out(falling(found, spare, past->had), n, items, rows, scores);
    return (ptrdiff_t)n;
}

#ifdef X86
int embeds_here(size_t width) { return width % 8 == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

__attribute__((target("avx2,f16c"))) static void add_row(const uint16_t *row, size_t width, float weight, float *out) {
    for (size_t d = 0; d < width; d += 8) {
        __m256 part = _mm256_mul_ps(_mm256_set1_ps(weight), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + d))));
        _mm256_storeu_ps(out + d, _mm256_add_ps(_mm256_loadu_ps(out + d), part));
    }
}
#else
int embeds_here(size_t width) { return 0; }
static void add_row(const uint16_t *row, size_t width, float weight, float *out) {}
#endif

int history_embedding(const uint16_t *table, size_t known, size_t width, const Past *past, float *out) {
    int32_t *rows;
    float *weights;
    ptrdiff_t all = weigh(past, 1, 0, &rows, &weights);
    if (all < 0) return NO_MEMORY;
    size_t count = 0;
    for (size_t h = 0; h < (size_t)all; h++)
        if ((size_t)rows[h] < known) weights[count] = weights[h], rows[count++] = rows[h];
    memset(out, 0, width * 4);
    for (size_t h = 0; h < count; h++) {
        size_t ahead = (size_t)rows[h + 8 < count ? h + 8 : h];
        for (size_t d = 0; d < width; d += 32) __builtin_prefetch(table + ahead * width + d);
        add_row(table + (size_t)rows[h] * width, width, weights[h], out);
    }
    float total = sum_of(weights, count);
    for (size_t d = 0; d < width; d++) out[d] /= total > 1e-6f ? total : 1e-6f;
    return 0;
}

ptrdiff_t category_promotion(const Offers *of, const Past *past, Excluded out, size_t n, float *values, int32_t *rows, float *scores) {
    int32_t *items;
    float *weights;
    ptrdiff_t count = weigh(past, 0, 0, &items, &weights);
    if (count < 0) return NO_MEMORY;
    size_t room = (size_t)count * of->groups + 1;
    Tally tally = {.sums = kept_zeros(KEPT_TABLE, (of->size + 1) * 8), .bases = kept_memory(KEPT_SUMS, room * 20)};
    float *lifts = kept_memory(KEPT_KINDS, (of->size + of->first.count + of->second.count) * 4);
    if (!tally.sums || !tally.bases || !lifts) return NO_MEMORY;
    tally.exponents = tally.bases + room, tally.touched = (int32_t *)(tally.exponents + room);
    Leaning user = {items, weights, (size_t)count, (double)sum_of(weights, (size_t)count) + of->prior};
    code_lifts(of, &user, tally, lifts);
    float *one = lifts + of->size, *other = one + of->first.count;
    if (!kind_lifts(&of->first, lifts, of->size, one) || !kind_lifts(&of->second, lifts, of->size, other) ||
        !within_narrow(of->first.at, of->offers, of->first.count) || !within_narrow(of->second.at, of->offers, of->second.count))
        return OUTSIDE;
    lift_all(of->worth, of->first.at, one, of->second.at, other, of->offers, values);
    Scored *best;
    ptrdiff_t found = best_but(values, of->offers, n, 0, out, &best);
    if (found > 0) list_out(best, (size_t)found, of->names, rows, scores);
    return found;
}
