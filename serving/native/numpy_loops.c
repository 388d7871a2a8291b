/* numpy's own loops for what has no exact definition: logarithms, exponentials, powers and float sums are the same bits here as beside a caller.
 * And its sort, which is faster than a radix sort of a thousand. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernel.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/ufuncobject.h>

typedef struct {
    PyUFuncGenericFunction run;
    void *data;
} Loop;

static Loop log_loop, exp_loop, power_loop, add_loop;
static PyArray_SortFunc *sort_loop;

/* The loop of a function of numpy's for arguments and result of one type; 0: exception set. */
static int find(PyObject *numpy, const char *name, int type, Loop *found) {
    PyObject *function = PyObject_GetAttrString(numpy, name);
    if (!function) return 0;
    PyUFuncObject *of = (PyUFuncObject *)function;
    for (int i = 0; i < of->ntypes && !found->run; i++) {
        int same = 1;
        for (int a = 0; a < of->nargs; a++) same = same && of->types[i * of->nargs + a] == type;
        if (same) found->run = of->functions[i], found->data = of->data ? (void *)of->data[i] : NULL;
    }
    Py_DECREF(function); /* the module keeps it */
    if (!found->run) PyErr_Format(PyExc_ImportError, "this numpy has no loop of %s for type %d: do without the native kernel", name, type);
    return found->run != NULL;
}

/* numpy's sort of uint64, which is vectorised where the CPU allows; 0: exception set. */
static int find_sort(void) {
    PyArray_Descr *number = PyArray_DescrFromType(NPY_UINT64);
    if (!number) return 0;
    sort_loop = PyDataType_GetArrFuncs(number)->sort[NPY_QUICKSORT];
    Py_DECREF(number);
    if (!sort_loop) PyErr_SetString(PyExc_ImportError, "this numpy has no sort of uint64: do without the native kernel");
    return sort_loop != NULL;
}

int find_numpy_loops(void) {
    import_array1(0);
    import_umath1(0);
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (!numpy) return 0;
    int found = find(numpy, "log", NPY_FLOAT, &log_loop) && find(numpy, "exp", NPY_DOUBLE, &exp_loop) && find(numpy, "power", NPY_DOUBLE, &power_loop) &&
                find(numpy, "add", NPY_FLOAT, &add_loop) && find_sort();
    Py_DECREF(numpy);
    return found;
}

void sort_numbers(void *numbers, size_t count) {
    if (count > 1) sort_loop(numbers, (npy_intp)count, NULL);
}

static void run(Loop loop, const void *one, const void *other, void *out, size_t count, npy_intp size) {
    char *args[3] = {(char *)one, (char *)(other ? other : out), (char *)out};
    npy_intp steps[3] = {size, size, size}, all = (npy_intp)count;
    if (count) loop.run(args, &all, steps, loop.data);
}

void logs(float *values, size_t count) { run(log_loop, values, NULL, values, count, sizeof(float)); }
void exps(double *values, size_t count) { run(exp_loop, values, NULL, values, count, sizeof(double)); }
void powers(double *bases, const double *exponents, size_t count) { run(power_loop, bases, exponents, bases, count, sizeof(double)); }

float sum_of(const float *values, size_t count) {
    float sum = 0;
    char *args[3] = {(char *)&sum, (char *)values, (char *)&sum};
    npy_intp steps[3] = {0, sizeof(float), 0}, all = (npy_intp)count;
    if (count) add_loop.run(args, &all, steps, add_loop.data); /* no step of the result: how numpy asks for a sum */
    return sum;
}
