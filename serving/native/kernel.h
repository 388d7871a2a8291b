/* What the parts of the kernel share: arguments as buffers, memory that is kept, selection of the best.
 *
 * Every loop gives what numpy beside its caller gives, to the bit: products of integers are exact, sums run in the same order and precision,
 * nothing is contracted (-ffp-contract=off), and whatever has no exact definition (logarithms, exponentials, powers, sums of floats) is run by numpy's loops.
 * The interpreter's lock is held throughout: a call is at most a few hundred microseconds, and the kept memory needs no other guard.
 */
#ifndef SHORTLIST_KERNEL_H
#define SHORTLIST_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define X86 1
#endif

/* Compiled for several generations of CPUs, chosen at run time. */
#if defined(X86) && !defined(__clang__)
#define HOT __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define HOT
#endif

typedef struct {
    float score;
    int32_t at;
} Scored;

/* Memory of at least `bytes`, kept for the next call; NULL with an exception set. One a purpose. */
enum { KEPT_FOUND, KEPT_SPARE, KEPT_SUMS, KEPT_SLOTS, KEPT_TABLE, KEPT_BARRED, KEPT_KINDS, KEPT_PAIRS, KEPT_PAST };
void *kept_memory(int purpose, size_t bytes);

/* The same, all zero where it has never been written; who writes puts the zeros back. */
void *kept_zeros(int purpose, size_t bytes);

/* Sorts `found` by falling score, equal scores staying in order; the sorted ones are returned (in `spare`). */
Scored *falling(Scored *found, Scored *spare, size_t count);

/* A score that the n best of `scores` reach, and few others; `keys` (count,) is room. n: 1 to count. */
float near_nth(const float *scores, size_t count, size_t n, uint32_t *keys);

/* The best of `scores` above `floor`, falling, ties by position: at least n of them, and among them at least `turns` whose byte in `marked` is
 * not 0, where there are as many. Returns how many; -1: exception. */
Py_ssize_t best_of(const float *scores, size_t count, size_t n, float floor, const uint8_t *marked, size_t turns, Scored **best);

/* Excluded rows are scored -inf for a while: `bar` keeps their scores (NULL: exception), `unbar` puts them back. */
float *bar(float *scores, size_t count, const int32_t *excluded, size_t barred);
void unbar(float *scores, const int32_t *excluded, size_t barred, const float *kept);

/* In place, by numpy's loops: natural logarithms, exponentials, each base to its exponent. Found once, when the module is made (0: exception). */
int find_numpy_loops(void);
void logs(float *values, size_t count);
void exps(double *values, size_t count);
void powers(double *bases, const double *exponents, size_t count);
void sort_numbers(void *numbers, size_t count); /* uint64, ascending */
float sum_of(const float *values, size_t count);

/* What a user had and looked at, as sources read it (serving/retrieval/interest.py), from the tuple (rows int32 (H,), decayed float32 (T, H),
 * mix float32 (T,), session rows int32 (E,), session weights float32 (E,)). */
typedef struct {
    const int32_t *rows, *clicked;
    const float *decayed, *mix, *session;
    size_t had, taus, events;
} Past;
enum { PAST_VIEWS = 5 };
int read_past(PyObject *given, Py_buffer *views, size_t items, Past *past); /* 0: exception, also for rows that are not below `items` */

/* Counts mixed from their decays, those of the session after them; `logged`: log(1 + count), of the `limit` heaviest (0: all) in their order.
 * Returns how many; -1: exception. */
Py_ssize_t weigh(const Past *past, int logged, size_t limit, int32_t **rows, float **weights);

/* The n best above `floor` but those excluded, which is how `best_of` is mostly asked. Returns how many; -1: exception. */
Py_ssize_t best_but(float *scores, size_t count, size_t n, float floor, const int32_t *excluded, size_t barred, Scored **best);

/* The first of `best` as `rows` and `scores` (NULL: not asked for), by the names of their positions (NULL: the position). */
void list_out(const Scored *best, size_t count, const int32_t *names, int32_t *rows, float *scores);

/* Arguments: arrays as contiguous buffers. `take` fills `views` after the format of PyArg_ParseTuple and counts them. */
typedef struct {
    Py_buffer *views;
    int count;
} Given;
void give_back(Given given);

PyObject *py_user_side(PyObject *, PyObject *);
PyObject *py_spans(PyObject *, PyObject *);
PyObject *py_search(PyObject *, PyObject *);
PyObject *py_products(PyObject *, PyObject *);
PyObject *py_instructions(PyObject *, PyObject *);
PyObject *py_best(PyObject *, PyObject *);
PyObject *py_again(PyObject *, PyObject *);
PyObject *py_votes(PyObject *, PyObject *);
PyObject *py_offers(PyObject *, PyObject *);
PyObject *py_fuse(PyObject *, PyObject *);
PyObject *py_resolve(PyObject *, PyObject *);
PyObject *py_recall(PyObject *, PyObject *);
PyObject *py_falling(PyObject *, PyObject *);
PyObject *py_bag(PyObject *, PyObject *);
PyObject *py_halves(PyObject *, PyObject *);
PyObject *py_worth(PyObject *, PyObject *);
PyObject *py_merge(PyObject *, PyObject *);
PyObject *py_judge(PyObject *, PyObject *);
PyObject *py_features(PyObject *, PyObject *);
PyObject *py_page(PyObject *, PyObject *);
PyObject *py_known(PyObject *, PyObject *);
PyObject *py_nearest(PyObject *, PyObject *);
PyObject *py_fault(PyObject *, PyObject *);

#endif
