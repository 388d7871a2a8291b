/* What the parts of the kernel share: arguments as buffers, memory that is kept, selection of the best.
 *
 * Every loop gives what numpy beside its caller gives, to the bit: products of integers are exact, sums run in the same order and precision,
 * nothing is contracted (-ffp-contract=off), and whatever has no exact definition (logarithms, exponentials, powers) is run by numpy's loops.
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
enum { KEPT_FOUND, KEPT_SPARE, KEPT_SUMS, KEPT_SLOTS, KEPT_TABLE, KEPT_BARRED, KEPT_KINDS, KEPT_PAIRS };
void *kept_memory(int purpose, size_t bytes);

/* The same, all zero where it has never been written; who writes puts the zeros back. */
void *kept_zeros(int purpose, size_t bytes);

/* Sorts `found` by falling score, equal scores staying in order; the sorted ones are returned (in `found` or in `spare`). */
Scored *falling(Scored *found, Scored *spare, size_t count);

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

/* The n best above `floor` but those excluded, which is how `best_of` is mostly asked: positions into `out`. Returns how many; -1: exception. */
Py_ssize_t best_but(float *scores, size_t count, size_t n, float floor, const int32_t *excluded, size_t barred, int32_t *out);

/* Arguments: arrays as contiguous buffers. `take` fills `views` after the format of PyArg_ParseTuple and counts them. */
typedef struct {
    Py_buffer *views;
    int count;
} Given;
void give_back(Given given);

PyObject *py_spans(PyObject *, PyObject *);
PyObject *py_search(PyObject *, PyObject *);
PyObject *py_products(PyObject *, PyObject *);
PyObject *py_instructions(PyObject *, PyObject *);
PyObject *py_best(PyObject *, PyObject *);
PyObject *py_votes(PyObject *, PyObject *);
PyObject *py_offers(PyObject *, PyObject *);
PyObject *py_fuse(PyObject *, PyObject *);
PyObject *py_resolve(PyObject *, PyObject *);
PyObject *py_recall(PyObject *, PyObject *);
PyObject *py_falling(PyObject *, PyObject *);
PyObject *py_bag(PyObject *, PyObject *);
PyObject *py_halves(PyObject *, PyObject *);
PyObject *py_tables(PyObject *, PyObject *);
PyObject *py_own(PyObject *, PyObject *);
PyObject *py_worth(PyObject *, PyObject *);
PyObject *py_merge(PyObject *, PyObject *);
PyObject *py_sizes(PyObject *, PyObject *);
PyObject *py_judge(PyObject *, PyObject *);
PyObject *py_features(PyObject *, PyObject *);

#endif
