/* The loops of a request and what they share: memory that is kept, selection of the best, numpy's own loops. No Python: `_kernel.pyx` is the only caller.
 *
 * Every loop gives what numpy beside its caller gives, to the bit: products of integers are exact, sums run in the same order and precision,
 * nothing is contracted (-ffp-contract=off), and whatever has no exact definition (logarithms, exponentials, powers, sums of floats) is run by numpy's loops.
 * `_kernel.pyx` checks lengths, types and ranges of rows before it calls; a loop counts for itself only what it makes itself.
 * The interpreter's lock is held throughout: a call is at most a few hundred microseconds, and the kept memory needs no other guard.
 */
#ifndef SHORTLIST_KERNEL_H
#define SHORTLIST_KERNEL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define X86 1
#endif

/* Compiled for several generations of CPUs, chosen at run time. A sanitizer looks at one. */
#if defined(X86) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define HOT __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define HOT
#endif

enum { NO_MEMORY = -1, OUTSIDE = -2 }; /* what a loop gives instead of a count: OUTSIDE, a code or row of a table is beyond what it points into */

typedef struct {
    float score;
    int32_t at;
} Scored;

/* Memory of at least `bytes`, kept for the next call; NULL where there is none. One a purpose. */
enum { KEPT_FOUND, KEPT_SPARE, KEPT_SUMS, KEPT_SLOTS, KEPT_TABLE, KEPT_BARRED, KEPT_KINDS, KEPT_PAIRS, KEPT_PAST, PURPOSES };
void *kept_memory(int purpose, size_t bytes);

/* The same, all zero where it has never been written; who writes puts the zeros back. */
void *kept_zeros(int purpose, size_t bytes);

/* Whether all rows are in 0 .. below - 1. */
int within(const int32_t *rows, size_t count, size_t below);
int within_narrow(const uint16_t *rows, size_t count, size_t below);

/* Sorts `found` by falling score, equal scores staying in order; the sorted ones are returned (in `spare`). */
Scored *falling(Scored *found, Scored *spare, size_t count);

/* (count,) positions of the scores, greatest first, ties by position. 0, or NO_MEMORY. */
int descending(const float *scores, size_t count, int32_t *order);

/* A score that the n best of `scores` reach, and few others; `keys` (count,) is room. n: 1 to count. */
float near_nth(const float *scores, size_t count, size_t n, uint32_t *keys);

/* The best of `scores` above `floor`, falling, ties by position: at least n of them, and among them at least `turns` whose byte in `marked` is
 * not 0, where there are as many. NaN is above nothing. Returns how many, or NO_MEMORY. */
ptrdiff_t best_of(const float *scores, size_t count, size_t n, float floor, const uint8_t *marked, size_t turns, Scored **best);

/* Rows that may not be answered. */
typedef struct {
    const int32_t *rows;
    size_t count;
} Excluded;

/* Excluded rows are scored -inf for a while: `bar` keeps their scores (NULL: no memory), `unbar` puts them back. */
float *bar(float *scores, Excluded out);
void unbar(float *scores, Excluded out, const float *kept);

/* The n best above `floor` but those excluded, which is how `best_of` is mostly asked. Returns how many, or NO_MEMORY. */
ptrdiff_t best_but(float *scores, size_t count, size_t n, float floor, Excluded out, Scored **best);

/* The first of `best` as `rows` and `scores`, by the names of their positions (NULL: the position). */
void list_out(const Scored *best, size_t count, const int32_t *names, int32_t *rows, float *scores);

/* In place, by numpy's loops: natural logarithms, exponentials, each base to its exponent. `find_numpy_loops` once, when the module is made (0: Python's exception is set). */
int find_numpy_loops(void);
void logs(float *values, size_t count);
void exps(double *values, size_t count);
void powers(double *bases, const double *exponents, size_t count);
void sort_numbers(void *numbers, size_t count); /* uint64, ascending */
float sum_of(const float *values, size_t count);

/* What a user had and looked at, as sources read it (serving/retrieval/interest.py). */
typedef struct {
    const int32_t *rows, *clicked;           /* (H,), (E,) */
    const float *decayed, *mix, *session;    /* (T, H), (T,), (E,) */
    size_t had, taus, events;
} Past;

/* Counts mixed from their decays, those of the session after them; `logged`: log(1 + count), of the `limit` heaviest (0: all) in their order.
 * Returns how many, or NO_MEMORY. */
ptrdiff_t weigh(const Past *past, int logged, size_t limit, int32_t **rows, float **weights);

/* history.c: a user's history on the rows of a bundle */
enum { EXACT_ROWS = 1 << 24 }; /* integers a float holds exactly: rows are sorted as floats */
enum { STEP_BITS = 10, STEPS = 1 << STEP_BITS };
typedef struct {
    const uint64_t *keys;        /* (I,) ascending */
    const int32_t *rows, *steps; /* (I,) of the keys; (STEPS + 1,) how many keys are below each step of the highest bits */
    size_t items;
} Index;
typedef struct {
    const double *last, *first, *taus; /* (H,), (H,), (T,) days */
    const float *counts, *decayed;     /* (H,), (H, T) at the last day */
    size_t kinds;                      /* T */
    double day;
} Events;
typedef struct {
    int32_t *rows;                        /* (H,) ascending */
    int64_t *order;                       /* (H,) which of the events */
    float *counts, *age, *span, *decayed; /* (H,), decayed (T, H) at the day */
} Aged;
int steps_are_sound(Index index, size_t steps);
ptrdiff_t history(Index index, const uint64_t *keys, size_t count, const Events *of, Aged out); /* how many are known: these stand first in `out` */

/* search.c: an int8 table (I, D) with scales and priors (I,), which may be NULL together */
typedef struct {
    const int8_t *rows;
    const float *scales, *prior;
    size_t items, width;
} Table;
int products(const Table *table, const float *vector, float *out);
int spans(const Table *table, const float *vector, const int64_t *begins, const int64_t *ends, size_t count, float *out);
ptrdiff_t search(const Table *table, const float *vector, const uint8_t *marked, size_t every, size_t n, Excluded out, float *values, int32_t *rows, float *scores);

/* sources.c */
typedef struct {
    const uint16_t *narrow;                    /* (M, K) positions of neighbours, or */
    const int32_t *wide, *position_of, *names; /* (M, K) the same in 32 bits; (I,) position of an item, -1 nowhere; (M,) items of the positions */
    const int16_t *weights;                    /* (M, K) */
    const float *scales;                       /* (M,) */
    size_t size, k, items;
} Neighbours;
enum { NOBODY = -3 }; /* nobody voted */
ptrdiff_t item_item(const Neighbours *table, const Past *past, size_t limit, Excluded out, size_t n, float *sums, int32_t *rows, float *scores);

typedef struct {
    const uint16_t *at;   /* (A,) kind of each offer */
    const int32_t *codes; /* (G, K) codes of each kind */
    size_t groups, count;
} Kinds;
typedef struct {
    const int32_t *codes, *names;  /* (I, G) codes of every item, N: none; (A,) items of the offers */
    const float *shares, *worth;   /* (N,), (A,) */
    const int64_t *ends;           /* (G,) where each grouping's codes end */
    const double *powers;          /* (G,) */
    size_t groups, size, offers;   /* G, N, A */
    double prior;
    Kinds first, second;
} Offers;
ptrdiff_t buy_again(const Past *past, const float *factor, size_t known, float usual, size_t n, int32_t *rows, float *scores);
int embeds_here(size_t width); /* whether this CPU has a loop for it */
int history_embedding(const uint16_t *table, size_t rows, size_t width, const Past *past, float *out);
ptrdiff_t category_promotion(const Offers *of, const Past *past, Excluded out, size_t n, float *values, int32_t *rows, float *scores);

/* fuse.c */
enum { MOST_SOURCES = 64, MOST_LISTED = 65534 }; /* an item's slot has sixteen bits: the table of slots stays in the nearest caches */
typedef struct {
    const int32_t *rows, *at;     /* best first; position of an item in `values`, NULL: its row */
    const float *scores, *values; /* values NULL: only what is listed has a score */
    size_t listed, known, valued; /* lengths of rows, at (else of values), values */
    float weight, offset;
    size_t promised;
} Listed;
typedef struct {
    const Listed *lists;
    const int32_t *history;
    const uint8_t *flags; /* (I,) of each item, NULL: none has any */
    size_t sources, had, pool, listed, items;
    unsigned barring; /* flags that keep an item out */
} Lists;
typedef struct {
    int32_t *rows;                 /* (M,) M: all that is listed, or what the pool takes at most */
    float *fused, *ranks, *scores; /* (M,), (M, S), (M, S) */
    uint8_t *seen;                 /* (M,) */
} Pooled;
ptrdiff_t fuse(const Lists *lists, Pooled out);

/* taste.c: what the rankers are told */
enum { TAUS = 4, LEVELS = 3 };
typedef struct {
    int32_t category[LEVELS], brand, pair; /* codes; pair: of brand and category together */
    float price;                           /* logarithm */
} Item;
typedef struct {
    const Item *items;
    size_t count, categories, brands, pairs;
} World;
typedef struct {
    const int32_t *history, *clicked;                     /* rows (H,) ascending, (E,) */
    const float *counts, *age, *span, *decayed, *session; /* (H,) each, decayed (T, H), (E,) */
    const Item *items;                                    /* made inside: (H + E,) those of the history, then of the session */
    size_t had, events, taste, recent;                    /* the decays at which shares are taken */
    float never, limit;
} User;
typedef struct {
    const int32_t *rows;                    /* (C,) */
    const float *fused, *ranks, *scores;    /* (C,), (C, S), (C, S) */
    const uint8_t *seen, *display, *mailer; /* (C,), (I,) or NULL */
    size_t count, sources;
    float relative, offset;
} Pool;
size_t features_width(size_t sources);
int features(const World *world, User *user, const Pool *pool, float *out); /* (C, features_width) */

/* rank.c: a ranker over its candidates */
typedef struct {
    const uint16_t *halves;                                /* (I, H) float16 */
    const int32_t *rows, *at;                              /* (C,); (K,) positions asked about, NULL: all */
    const float *user, *cross, *mean, *scale, *panels;     /* (H,), (C, Fx), (Fx,), (Fx,) */
    const int64_t *sizes;                                  /* inputs, then what each layer gives */
    float clip;
    size_t count, layers; /* count: of those asked about */
} Ranker;
int ranks_here(void);                                 /* whether this CPU has a loop for it */
ptrdiff_t panels_of(const int64_t *sizes, size_t layers); /* how many numbers `panels` holds; OUTSIDE: layers the loop has no room for */
int rank_candidates(const Ranker *ranker, float *out); /* (K, heads) */
typedef struct {
    const double *weights, *floors; /* (H,) */
    const uint8_t *judges;          /* (2, H) of items not had before, of items had */
    size_t count;                   /* H */
} Heads;
int final_scores(const float *logits, const uint8_t *seen, const float *lifts, const int32_t *at, size_t count, Heads heads, float *out);

/* arrange.c: one page of a list under caps and floors */
enum { MOST_RULES = 8, NEAR = 128, PAGE = 64 }; /* caps or floors, items looked at for one page, items of a page */
typedef struct {
    const int32_t *codes; /* (I,) group of each item, 0: of none */
    int64_t most;         /* of one group */
} Cap;
typedef struct {
    const uint8_t *new; /* (I,) */
    size_t least;       /* new ones on a page */
} Floor;
typedef struct {
    const int32_t *rows;     /* (N,) best first */
    const uint8_t *left_out; /* (N,), NULL: nothing is */
    const Cap *caps;
    size_t count, cap_count, wanted, read;
    int32_t page[PAGE], skipped[NEAR], dropped[MOST_RULES * PAGE], added[MOST_RULES * PAGE]; /* positions in the list */
    uint8_t by[NEAR];                                                                        /* which cap skipped it */
    size_t skips, drops, adds;
} Walk;
typedef struct {
    int32_t added[PAGE]; /* positions in the list */
    size_t count, lacking;
} Met;
int first_page(Walk *walk, const uint8_t *flags, unsigned bits, const Floor *floors, Met *met, size_t count); /* 0: not plain, the caller must go its own way */

/* user.c: the user's side of all models */
typedef struct {
    const float *mean, *scale, *log_mean, *log_scale, *own_mean, *own_spread;
    size_t width, own; /* Fr, Fu */
    float clip;
} Standard;
typedef struct {
    const float *first, *bias, *second, *own, *own_bias, *top, *top_bias, *bag;
    size_t all, halves, hidden, dimensions; /* of `bias`, of what is answered, of the tower's layer, of its vector (0: no tower) */
} UserLayers;
enum { WIDEST_SIDE = 2048 };
int sides_here(void);
void user_side(const Standard *standard, const UserLayers *layers, const float *features, size_t given, const float *bag, float *halves, float *vector);

#endif
