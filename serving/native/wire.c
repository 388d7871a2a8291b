/* What is looked through in a frame before anything of it is used (serving/split/frames.py). */
#include "kernel.h"

enum { SOUND, BAD_ROW, BAD_SCORE, BAD_RANK, BAD_FLAG, TWICE }; /* serving.split.frames.FAULTS */

HOT static int any_beyond(const uint32_t *rows, size_t count, uint32_t below) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= rows[i] >= below; /* a negative row is beyond all of them */
    return wrong;
}

HOT static int any_endless(const uint32_t *bits, size_t count) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= (bits[i] & 0x7f800000u) == 0x7f800000u;
    return wrong;
}

HOT static int any_below_zero(const float *ranks, size_t count) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= !(ranks[i] >= 0);
    return wrong;
}

HOT static int any_above_one(const uint8_t *flags, size_t count) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) wrong |= flags[i] > 1;
    return wrong;
}

/* Of rows below `below`; -1: exception. */
static int any_twice(const uint32_t *rows, size_t count, size_t below) {
    uint8_t *met = kept_memory(KEPT_FOUND, below + 1);
    int wrong = 0;
    if (!met) return -1;
    memset(met, 0, below);
    for (size_t i = 0; i < count; i++) wrong |= met[rows[i]], met[rows[i]] = 1;
    return wrong;
}

/* fault(frame, at, below, rows, scores, ranks, flags, once) -> the first of the faults above in what lies at `at`, one after the other: so many
 * int32 rows, each `once` if that is asked, float32 scores and ranks, and bytes */
PyObject *py_fault(PyObject *self, PyObject *args) {
    Py_buffer v = {0};
    Py_ssize_t at, below, rows, scores, ranks, flags;
    int once, fault = SOUND;
    if (!PyArg_ParseTuple(args, "y*nnnnnnp", &v, &at, &below, &rows, &scores, &ranks, &flags, &once)) return NULL;
    Py_ssize_t most = v.len / 4, numbers = rows + scores + ranks;
    int within = at >= 0 && at <= v.len && below >= 0 && below <= INT32_MAX && rows >= 0 && scores >= 0 && ranks >= 0 && flags >= 0 && rows <= most &&
                 scores <= most && ranks <= most && flags <= v.len && numbers * 4 + flags <= v.len - at;
    if (within) {
        const uint32_t *first = (const uint32_t *)((const char *)v.buf + at);
        if (any_beyond(first, (size_t)rows, (uint32_t)below)) fault = BAD_ROW;
        else if (any_endless(first + rows, (size_t)scores)) fault = BAD_SCORE;
        else if (any_below_zero((const float *)first + rows + scores, (size_t)ranks)) fault = BAD_RANK;
        else if (any_above_one((const uint8_t *)(first + numbers), (size_t)flags)) fault = BAD_FLAG;
        else if (once && (fault = any_twice(first, (size_t)rows, (size_t)below)) > 0) fault = TWICE;
    }
    PyBuffer_Release(&v);
    if (!within) return PyErr_Format(PyExc_ValueError, "expected %zd rows, %zd scores, %zd ranks and %zd flags within the frame", rows, scores, ranks, flags);
    return fault < 0 ? NULL : PyLong_FromLong(fault);
}
