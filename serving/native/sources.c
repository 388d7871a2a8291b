/* Sums over the history (serving/sources/): votes of its items for their neighbours, offers times the user's lifts, the history bag. */
#include "kernel.h"

typedef struct {
    const void *neighbours;
    const int16_t *weights;
    size_t size, k, entry; /* rows, neighbours of each, bytes of a neighbour */
} Votes;

/* What a voter says for each of its neighbours. */
HOT static void say(const int16_t *weights, size_t k, float strength, double *parts) {
    for (size_t j = 0; j < k; j++) parts[j] = (double)((float)weights[j] * strength);
}

HOT static int lacks(const uint16_t *numbers, size_t count, size_t limit) {
    uint16_t most = 0;
    for (size_t i = 0; i < count; i++) most = numbers[i] > most ? numbers[i] : most;
    return count && most >= limit;
}

HOT static int lacks_wide(const int32_t *numbers, size_t count, size_t limit) {
    uint32_t most = 0; /* a negative one is beyond all of them */
    for (size_t i = 0; i < count; i++) most = (uint32_t)numbers[i] > most ? (uint32_t)numbers[i] : most;
    return count && most >= limit;
}

/* Adds them up, in order; `parts` (K,) is room. Whether all neighbours are within the table. */
static int add_votes(Votes t, size_t voter, float strength, double *parts, double *sums) {
    const uint16_t *narrow = (const uint16_t *)t.neighbours + voter * t.k;
    const int32_t *wide = (const int32_t *)t.neighbours + voter * t.k;
    if (t.entry == 2 ? lacks(narrow, t.k, t.size) : lacks_wide(wide, t.k, t.size)) return 0;
    say(t.weights + voter * t.k, t.k, strength, parts);
    if (t.entry == 2)
        for (size_t j = 0; j < t.k; j++) sums[narrow[j]] += parts[j];
    else
        for (size_t j = 0; j < t.k; j++) sums[wide[j]] += parts[j];
    return 1;
}

HOT static void narrowed(const double *sums, size_t count, float *out) {
    for (size_t m = 0; m < count; m++) out[m] = (float)sums[m];
}

static void ask_for(Votes t, size_t voter) {
    const char *next = (const char *)t.neighbours + voter * t.k * t.entry, *weight = (const char *)(t.weights + voter * t.k);
    for (size_t b = 0; b < t.k * t.entry; b += 64) __builtin_prefetch(next + b);
    for (size_t b = 0; b < t.k * 2; b += 64) __builtin_prefetch(weight + b);
}

/* votes(neighbours (M, K) uint16 or int32, weights int16 (M, K), scales float32 (M,), positions int32 (I,), their rows int32 (M,), past, limit, items,
 *       excluded int32, n, sums float32 (M,) out, rows int32 (n,) out, scores float32 (n,) out) -> how many rows: the n best above 0; -1: nobody voted */
PyObject *py_votes(PyObject *self, PyObject *args) {
    enum { NEIGHBOURS, WEIGHTS, SCALES, POSITIONS, NAMES, EXCLUDED, SUMS, ROWS, SCORES, ALL };
    Py_buffer v[ALL] = {{0}}, of[PAST_VIEWS] = {{0}};
    Py_ssize_t n, limit, items, asked = -1, found = -1;
    PyObject *given;
    Past past;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*O!nny*nw*w*w*", &v[0], &v[1], &v[2], &v[3], &v[4], &PyTuple_Type, &given, &limit, &items, &v[5], &n, &v[6], &v[7], &v[8])) return NULL;
    size_t known = (size_t)v[POSITIONS].len / 4, size = (size_t)v[SUMS].len / 4, entries = (size_t)v[WEIGHTS].len / 2, voters = 0;
    Votes t = {v[NEIGHBOURS].buf, v[WEIGHTS].buf, size, size ? entries / size : 0, entries ? (size_t)v[NEIGHBOURS].len / entries : 2};
    const char *problem = NULL;
    if (v[SCALES].len != v[SUMS].len || v[NAMES].len != v[SUMS].len) problem = "expected a scale and a row for every voter";
    else if (t.entry != 2 && t.entry != 4) problem = "expected neighbours of 2 or 4 bytes";
    else if (size == 0 || entries % size) problem = "expected the same number of neighbours for every row";
    else if (n < 0 || limit < 0 || v[ROWS].len != n * 4 || v[SCORES].len != n * 4) problem = "expected room for n rows";
    int32_t *rows;
    float *interest, *votes = v[SUMS].buf;
    if (!problem && read_past(given, of, (size_t)items, &past)) asked = weigh(&past, 1, (size_t)limit, &rows, &interest);
    double *sums = asked < 0 ? NULL : kept_memory(KEPT_SUMS, (size + t.k + 1) * 8);
    Scored *voter = sums ? kept_memory(KEPT_FOUND, (size_t)(asked + 1) * sizeof(Scored)) : NULL, *best;
    if (voter) {
        for (Py_ssize_t h = 0; h < asked; h++) {
            size_t place = (size_t)rows[h] < known ? (size_t)((const int32_t *)v[POSITIONS].buf)[rows[h]] : size; /* -1 is beyond all of them */
            if (place < size) voter[voters++] = (Scored){interest[h] * ((const float *)v[SCALES].buf)[place], (int32_t)place};
        }
        memset(sums, 0, size * 8);
        for (size_t h = 0; h < voters && !problem; h++) {
            if (h + 1 < voters) ask_for(t, (size_t)voter[h + 1].at);
            if (!add_votes(t, (size_t)voter[h].at, voter[h].score, sums + size, sums)) problem = "a neighbour is outside of the table";
        }
        narrowed(sums, size, votes);
        if (!problem && voters) found = best_but(votes, size, (size_t)n, 0, v[EXCLUDED].buf, (size_t)v[EXCLUDED].len / 4, &best);
        if (found > 0) list_out(best, (size_t)found, v[NAMES].buf, v[ROWS].buf, v[SCORES].buf);
    }
    give_back((Given){of, PAST_VIEWS});
    give_back((Given){v, ALL});
    if (problem) PyErr_Format(PyExc_ValueError, "%s", problem);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(found);
}

/* again(past, items, factor float32 (I,), that of items it lacks, n, rows int32 (n,) out, scores float32 (n,) out) -> how many rows:
 * what was had, the most alive first */
PyObject *py_again(PyObject *self, PyObject *args) {
    Py_buffer v[3] = {{0}}, of[PAST_VIEWS] = {{0}};
    Py_ssize_t n, items, all = -1;
    PyObject *given;
    Past past;
    int32_t *rows;
    float *weights, usual;
    if (!PyArg_ParseTuple(args, "O!ny*fnw*w*", &PyTuple_Type, &given, &items, &v[0], &usual, &n, &v[1], &v[2])) return NULL;
    if (n < 0 || v[1].len != n * 4 || v[2].len != n * 4) PyErr_Format(PyExc_ValueError, "expected room for %zd rows", n);
    else if (read_past(given, of, (size_t)items, &past)) all = weigh(&past, 0, 0, &rows, &weights);
    const float *factor = v[0].buf;
    size_t known = (size_t)v[0].len / 4;
    Scored *found = all < 0 ? NULL : kept_memory(KEPT_FOUND, (past.had + 1) * sizeof(Scored)), *spare = found ? kept_memory(KEPT_SPARE, (past.had + 1) * sizeof(Scored)) : NULL;
    double *more = spare ? kept_memory(KEPT_SUMS, (past.had + 1) * 8) : NULL;
    if (more) {
        memset(more, 0, past.had * 8);
        for (size_t e = 0; e < past.events; e++) {
            size_t low = 0, high = past.had;
            while (low < high) {
                size_t middle = (low + high) / 2;
                if (past.rows[middle] < past.clicked[e]) low = middle + 1;
                else high = middle;
            }
            if (low < past.had && past.rows[low] == past.clicked[e]) more[low] += (double)past.session[e];
        }
        for (size_t h = 0; h < past.had; h++)
            found[h] = (Scored){(past.events ? weights[h] + (float)more[h] : weights[h]) * ((size_t)rows[h] < known ? factor[rows[h]] : usual), (int32_t)h};
        if (n > (Py_ssize_t)past.had) n = (Py_ssize_t)past.had;
        list_out(falling(found, spare, past.had), (size_t)n, past.rows, v[1].buf, v[2].buf);
    }
    give_back((Given){of, PAST_VIEWS});
    give_back((Given){v, 3});
    return more ? PyLong_FromSsize_t(n) : NULL;
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

typedef struct {
    const int32_t *codes, *rows; /* (I, G) of every item, (H,) */
    const float *weights, *shares; /* (H,), (N,) */
    const int64_t *ends;           /* (G,) where each grouping's codes end */
    const double *powers;          /* (G,) */
    size_t count, groups, size;
    double prior, total;
} Taste;

/* (N,) how much more the user goes for each code than everyone does, to its power; `sums` (N,) are all zero before and after. */
static void code_lifts(const Taste *t, double *sums, int32_t *touched, double *bases, double *exponents, float *lifts) {
    size_t met = 0, begin = 0;
    for (size_t g = 0; g < t->groups; begin = (size_t)t->ends[g++]) {
        float without = (float)pow(t->prior / t->total, t->powers[g]);
        for (size_t code = begin; code < (size_t)t->ends[g]; code++) lifts[code] = without;
        for (size_t h = 0; h < t->count; h++) {
            if (!g && h + 16 < t->count) __builtin_prefetch(t->codes + (size_t)t->rows[h + 16] * t->groups);
            int32_t code = t->codes[(size_t)t->rows[h] * t->groups + g];
            if (code < 0 || (size_t)code >= t->size || !(t->weights[h] > 0)) continue;
            if (sums[code] == 0) exponents[met] = t->powers[g], touched[met++] = code;
            sums[code] += (double)t->weights[h];
        }
    }
    for (size_t i = 0; i < met; i++) bases[i] = (sums[touched[i]] / (double)t->shares[touched[i]] + t->prior) / t->total, sums[touched[i]] = 0;
    powers(bases, exponents, met);
    for (size_t i = 0; i < met; i++) lifts[touched[i]] = (float)bases[i];
}

static int sound_taste(const Taste *t) {
    int wrong = 0;
    for (size_t g = 0; g < t->groups && !wrong; g++) wrong = t->ends[g] < (g ? t->ends[g - 1] : 0) || (size_t)t->ends[g] > t->size;
    return !wrong;
}

/* The product of the lifts of each kind's codes (groupings, kinds). */
static int kind_lifts(const int32_t *codes, size_t entries, size_t kinds, const float *lifts, size_t all, float *out) {
    for (size_t begin = 0; begin + kinds <= entries; begin += kinds)
        for (size_t k = 0; k < kinds; k++) {
            size_t code = (size_t)codes[begin + k];
            if (code >= all) return 0;
            out[k] = begin ? out[k] * lifts[code] : lifts[code];
        }
    return entries % kinds == 0;
}

/* offers(codes int32 (I, G), past, shares float32 (N,), ends int64 (G,), powers float64 (G,), prior, worth float32 (A,), their rows int32 (A,),
 *        first kinds uint16 (A,), their codes int32 (g, K), K, second kinds, codes, K, excluded positions int32, n,
 *        values float32 (A,) out, rows int32 (n,) out, scores float32 (n,) out) -> how many rows: worth x lifts of each offer, and the n best above 0 */
PyObject *py_offers(PyObject *self, PyObject *args) {
    enum { CODES, SHARES, ENDS, POWERS, WORTH, NAMES, FIRST, FIRST_CODES, SECOND, SECOND_CODES, EXCLUDED, VALUES, ROWS, SCORES, ALL };
    Py_buffer v[ALL] = {{0}}, of[PAST_VIEWS] = {{0}};
    Py_ssize_t kinds[2], n, found = -1, count = -1;
    PyObject *given;
    Past past;
    double prior;
    if (!PyArg_ParseTuple(args, "y*O!y*y*y*dy*y*y*y*ny*y*ny*nw*w*w*", &v[0], &PyTuple_Type, &given, &v[1], &v[2], &v[3], &prior, &v[4], &v[5], &v[6], &v[7], &kinds[0],
                          &v[8], &v[9], &kinds[1], &v[10], &n, &v[11], &v[12], &v[13])) return NULL;
    size_t groups = (size_t)v[ENDS].len / 8, offers = (size_t)v[VALUES].len / 4, size = (size_t)v[SHARES].len / 4, items = groups ? (size_t)v[CODES].len / 4 / groups : 0;
    int32_t *rows;
    float *weights, *values = v[VALUES].buf;
    int sound = v[WORTH].len == v[VALUES].len && v[NAMES].len == v[VALUES].len && (size_t)v[FIRST].len == offers * 2 && (size_t)v[SECOND].len == offers * 2 && kinds[0] >= 1 &&
                kinds[1] >= 1 && n >= 0 && v[ROWS].len == n * 4 && v[SCORES].len == n * 4 && (size_t)v[POWERS].len == groups * 8 && groups;
    if (sound && read_past(given, of, items, &past)) count = weigh(&past, 0, 0, &rows, &weights);
    size_t room = count < 0 ? 0 : (size_t)count * groups + 1;
    Taste taste = {v[CODES].buf, rows, weights, v[SHARES].buf, v[ENDS].buf, v[POWERS].buf, room ? (size_t)count : 0, groups, size, prior, 0};
    sound = sound && (!room || sound_taste(&taste));
    double *sums = sound && room ? kept_zeros(KEPT_TABLE, (size + 1) * 8) : NULL, *bases = sums ? kept_memory(KEPT_SUMS, room * 20) : NULL;
    float *lifts = bases ? kept_memory(KEPT_KINDS, (size + (size_t)(kinds[0] + kinds[1])) * 4) : NULL;
    if (lifts) {
        float *one = lifts + size, *other = one + kinds[0];
        taste.total = (double)sum_of(weights, taste.count) + prior;
        code_lifts(&taste, sums, (int32_t *)(bases + 2 * room), bases, bases + room, lifts);
        sound = kind_lifts(v[FIRST_CODES].buf, (size_t)v[FIRST_CODES].len / 4, (size_t)kinds[0], lifts, size, one) &&
                kind_lifts(v[SECOND_CODES].buf, (size_t)v[SECOND_CODES].len / 4, (size_t)kinds[1], lifts, size, other) &&
                !lacks(v[FIRST].buf, offers, (size_t)kinds[0]) && !lacks(v[SECOND].buf, offers, (size_t)kinds[1]);
        Scored *best;
        if (sound) lift_all(v[WORTH].buf, v[FIRST].buf, one, v[SECOND].buf, other, offers, values);
        if (sound) found = best_but(values, offers, (size_t)n, 0, v[EXCLUDED].buf, (size_t)v[EXCLUDED].len / 4, &best);
        if (found > 0) list_out(best, (size_t)found, v[NAMES].buf, v[ROWS].buf, v[SCORES].buf);
    }
    give_back((Given){of, PAST_VIEWS});
    give_back((Given){v, ALL});
    if (!sound && !PyErr_Occurred())
        return PyErr_Format(PyExc_ValueError, "expected %zu worths and kinds, kinds with codes that have a lift, and room for n rows", offers);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, mantissa = half & 1023, bits;
    if (exponent == 31) bits = sign | 0x7f800000u | (mantissa << 13);
    else if (exponent) bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    else {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* out (+)= weight * row, of float16 */
static void add_halves(const uint16_t *row, float weight, const float *base, float *out, size_t width) {
    for (size_t d = 0; d < width; d++) out[d] = base[d] + weight * half_to_float(row[d]);
}

#ifdef X86
__attribute__((target("avx512f"))) static void add_halves_wide(const uint16_t *row, float weight, const float *base, float *out, size_t width) {
    __m512 times = _mm512_set1_ps(weight);
    for (size_t d = 0; d < width; d += 16) {
        __m512 part = _mm512_mul_ps(times, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + d))));
        _mm512_storeu_ps(out + d, _mm512_add_ps(_mm512_loadu_ps(base + d), part));
    }
}

__attribute__((target("avx2,f16c"))) static void add_halves_avx2(const uint16_t *row, float weight, const float *base, float *out, size_t width) {
    __m256 times = _mm256_set1_ps(weight);
    for (size_t d = 0; d < width; d += 8) {
        __m256 part = _mm256_mul_ps(times, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + d))));
        _mm256_storeu_ps(out + d, _mm256_add_ps(_mm256_loadu_ps(base + d), part));
    }
}
#endif

typedef void (*add_fn)(const uint16_t *, float, const float *, float *, size_t);

static add_fn choose_add(size_t width) {
#ifdef X86
    __builtin_cpu_init();
    if (width % 16 == 0 && __builtin_cpu_supports("avx512f")) return add_halves_wide;
    if (width % 8 == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return add_halves_avx2;
#endif
    return add_halves;
}

/* bag(table float16 (I, D), past, items, out float32 (D,)): the mean of the rows that the table has, by weight; zeros without any */
PyObject *py_bag(PyObject *self, PyObject *args) {
    Py_buffer v[2] = {{0}}, of[PAST_VIEWS] = {{0}};
    Py_ssize_t all = -1, items;
    PyObject *given;
    Past past;
    int32_t *rows;
    float *weights;
    if (!PyArg_ParseTuple(args, "y*O!nw*", &v[0], &PyTuple_Type, &given, &items, &v[1])) return NULL;
    size_t width = (size_t)v[1].len / 4, known = width ? (size_t)v[0].len / (2 * width) : 0, count = 0;
    if (read_past(given, of, (size_t)items, &past)) all = weigh(&past, 1, 0, &rows, &weights);
    if (all >= 0) {
        add_fn add = choose_add(width);
        float *out = v[1].buf;
        for (Py_ssize_t h = 0; h < all; h++)
            if ((size_t)rows[h] < known) weights[count] = weights[h], rows[count++] = rows[h];
        memset(out, 0, width * 4);
        for (size_t h = 0; h < count; h++) {
            if (h + 8 < count)
                for (size_t d = 0; d < width; d += 32) __builtin_prefetch((const uint16_t *)v[0].buf + (size_t)rows[h + 8] * width + d);
            add((const uint16_t *)v[0].buf + (size_t)rows[h] * width, weights[h], out, out, width);
        }
        float total = sum_of(weights, count);
        for (size_t d = 0; d < width && count; d++) out[d] /= total > 1e-6f ? total : 1e-6f;
    }
    give_back((Given){of, PAST_VIEWS});
    give_back((Given){v, 2});
    if (all < 0) return NULL;
    Py_RETURN_NONE;
}

/* halves(table float16 (I, H), rows int32 (C,), user float32 (H,), out float32 (C, H)): item half + user half */
PyObject *py_halves(PyObject *self, PyObject *args) {
    Py_buffer v[4] = {{0}};
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &v[0], &v[1], &v[2], &v[3])) return NULL;
    size_t width = (size_t)v[2].len / 4, items = width ? (size_t)v[0].len / (2 * width) : 0, count = (size_t)v[1].len / 4;
    const int32_t *rows = v[1].buf;
    int wrong = (size_t)v[3].len != count * width * 4;
    for (size_t c = 0; c < count; c++) wrong |= rows[c] < 0 || (size_t)rows[c] >= items;
    if (!wrong) {
        add_fn add = choose_add(width);
        for (size_t c = 0; c < count; c++) {
            if (c + 8 < count)
                for (size_t d = 0; d < width; d += 32) __builtin_prefetch((const uint16_t *)v[0].buf + (size_t)rows[c + 8] * width + d);
            add((const uint16_t *)v[0].buf + (size_t)rows[c] * width, 1.0f, v[2].buf, (float *)v[3].buf + c * width, width);
        }
    }
    give_back((Given){v, 4});
    if (wrong) return PyErr_Format(PyExc_ValueError, "expected rows within a table of %zu, and room for %zu x %zu", items, count, width);
    Py_RETURN_NONE;
}
