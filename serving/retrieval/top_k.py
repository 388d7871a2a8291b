"""The best n of many, exactly, in plain numpy; and how many items are few enough to be searched one and all.

Shapes: I items, n asked.
"""

import numpy as np

from serving.bundle.arrays import Floats, Rows
from serving.native import kernel

EXACT_LIMIT = 250_000  # items; measured: every row of an int8 table up to about here, above only the cells nearest to the vector (IVF)
_NOTHING = np.empty(0, np.int32)


def select(scores: Floats, n: int, excluded: Rows = _NOTHING, floor: float = -np.inf) -> Rows:
    """Rows of the `n` greatest `scores` (I,) above `floor`, best first, ties by row; none of `excluded`."""
    wanted = scores > floor
    wanted[excluded] = False
    rows = np.flatnonzero(wanted)
    if 0 < n < len(rows):  # not a sort of all
        least = np.partition(scores[rows], len(rows) - n)[len(rows) - n]
        rows = rows[scores[rows] >= least]
    return rows[descending(scores[rows])[: max(n, 0)]].astype(np.int32)


def descending(values: Floats) -> Rows:
    """Positions of `values` (n,) from the greatest to the least, ties by position."""
    compiled = kernel.descending(values)
    return compiled if compiled is not None else np.argsort(-values, kind="stable").astype(np.int32)
