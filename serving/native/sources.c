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

#ifdef X86
__attribute__((target("avx512f"))) static size_t lift_wide(
    const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    size_t a = 0;
    for (; a + 16 <= offers; a += 16) {
        __m512i kinds = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(first + a)));
        __m512i others = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(second + a)));
        __m512 lifted = _mm512_mul_ps(_mm512_loadu_ps(worth + a), _mm512_i32gather_ps(kinds, one, 4));
        _mm512_storeu_ps(out + a, _mm512_mul_ps(lifted, _mm512_i32gather_ps(others, other, 4)));
    }
    return a;
}

__attribute__((target("avx2"))) static size_t lift_avx2(
    const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    size_t a = 0;
    for (; a + 8 <= offers; a += 8) {
        __m256i kinds = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(first + a)));
        __m256i others = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(second + a)));
        __m256 lifted = _mm256_mul_ps(_mm256_loadu_ps(worth + a), _mm256_i32gather_ps(one, kinds, 4));
        _mm256_storeu_ps(out + a, _mm256_mul_ps(lifted, _mm256_i32gather_ps(other, others, 4)));
    }
    return a;
}
#endif

static void lift_all(const float *worth, const uint16_t *first, const float *one, const uint16_t *second, const float *other, size_t offers, float *out) {
    size_t a = 0;
#ifdef X86
    if (__builtin_cpu_supports("avx512f")) a = lift_wide(worth, first, one, second, other, offers, out);
    else if (__builtin_cpu_supports("avx2")) a = lift_avx2(worth, first, one, second, other, offers, out);
#endif
    for (; a < offers; a++) out[a] = worth[a] * one[first[a]] * other[second[a]];
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
