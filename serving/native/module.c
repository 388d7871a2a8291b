/* The hot loops of a request as a Python module; serving/native/kernel.py is its door. */
#include "kernel.h"

static PyMethodDef methods[] = {
    {"user_side", py_user_side, METH_VARARGS, "The user's side of all models."},
    {"spans", py_spans, METH_VARARGS, "Products of stretches of a table."},
    {"search", py_search, METH_VARARGS, "The best of a table for a vector, marked rows among them."},
    {"products", py_products, METH_VARARGS, "Exact integer products of int8 rows with an int8 vector, scaled."},
    {"instructions", py_instructions, METH_VARARGS, "instructions(width) -> name of the scan this CPU gets."},
    {"best", py_best, METH_VARARGS, "The n best of many scores."},
    {"again", py_again, METH_VARARGS, "What was had, the most alive first."},
    {"votes", py_votes, METH_VARARGS, "Votes of history items for their neighbours, and who has most."},
    {"offers", py_offers, METH_VARARGS, "Offers times the user's lifts, and the best of them."},
    {"bag", py_bag, METH_VARARGS, "Weighted sum of rows of a float16 table."},
    {"halves", py_halves, METH_VARARGS, "Rows of a float16 table plus one vector."},
    {"fuse", py_fuse, METH_VARARGS, "One pool from the lists of the sources."},
    {"resolve", py_resolve, METH_VARARGS, "Rows of item keys."},
    {"recall", py_recall, METH_VARARGS, "A history on the rows of a bundle."},
    {"falling", py_falling, METH_VARARGS, "Positions of scores, greatest first."},
    {"worth", py_worth, METH_VARARGS, "Scores from logits."},
    {"merge", py_merge, METH_VARARGS, "Heavy order, then light order."},
    {"features", py_features, METH_VARARGS, "Features of candidates."},
    {"judge", py_judge, METH_VARARGS, "A ranker over its candidates."},
    {"page", py_page, METH_VARARGS, "The first of a list under caps and floors."},
    {"known", py_known, METH_VARARGS, "Sources and history of items that are shown."},
    {"nearest", py_nearest, METH_VARARGS, "Who votes most for an item."},
    {"fault", py_fault, METH_VARARGS, "What is wrong with the numbers of a frame."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "serving.native._kernel", "Hot loops of a request.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return find_numpy_loops() ? PyModule_Create(&module) : NULL; }
