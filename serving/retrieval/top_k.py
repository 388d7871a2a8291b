"""The best n of many: exact selection from scores, and nearest-item search, in plain numpy.

Selection: a threshold from a sample of the scores, then a sort of the few survivors (serving.md section 2); exact by construction, because
everything is looked at again whenever fewer than n survive. Search: every row of an int8 table up to `EXACT_LIMIT` items; above, the rows
of the cells nearest to the vector (IVF). Shapes: I items, D dimensions, L cells, n asked.
"""

import sys
from math import sqrt

import numpy as np

from serving.bundle.arrays import Floats, Rows
from serving.native import kernel

EXACT_LIMIT = 250_000  # items; serving.md section 7: exact to about here, cells above
_NOTHING = np.empty(0, np.int32)
_LOW = int(sys.byteorder == "big")  # which half of a 64-bit number comes first
_SAMPLE = 1024  # scores looked at to set the threshold
_SLACK = 1.3  # survivors aimed at, over n


def select(scores: Floats, n: int, excluded: Rows | None = None, floor: float = -np.inf) -> Rows:
    """Rows of the `n` greatest `scores` (I,) above `floor`, best first, ties by row; none of `excluded`.

    `scores` is written to while it runs and left as it was.
    """
    if n <= 0:
        return np.empty(0, np.int32)
    compiled = kernel.best(scores, n, floor, _NOTHING if excluded is None else excluded)
    if compiled is not None:
        return compiled
    if excluded is not None and len(excluded):
        kept = scores[excluded]
        scores[excluded] = -np.inf
        found = select(scores, n, None, floor)
        scores[excluded] = kept
        return found
    threshold = _threshold(scores, n)
    survivors = (scores >= threshold if threshold > floor else scores > floor).nonzero()[0]
    if len(survivors) < n and threshold > floor:
        survivors = (scores > floor).nonzero()[0]
    values = scores.take(survivors)
    if len(survivors) > 4 * n:
        near = (values >= np.partition(values, len(values) - n)[len(values) - n]).nonzero()[0]
        survivors, values = survivors.take(near), values.take(near)
    return survivors.take(descending(values)[:n]).astype(np.int32)


def descending(values: Floats) -> Rows:
    """Positions of `values` from the greatest to the least, ties by position: `argsort(-values, kind="stable")`, five times faster.

    A float's bits, flipped so that they order as whole numbers do, with the position below them, make distinct 64-bit keys.
    """
    compiled = kernel.falling(values)
    if compiled is not None:
        return compiled
    lines = np.empty((len(values), 2), np.int32)
    lines[:, _LOW] = np.arange(len(values), dtype=np.int32)
    bits = np.asarray(values, np.float32).view(np.int32)
    if len(bits) and bits.min() < 0:  # without a sign they order so as they are
        bits = (bits.view(np.float32) + np.float32(0)).view(np.int32)  # + 0: no negative zero
        bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    np.invert(bits, out=lines[:, 1 - _LOW])
    lines.view(np.int64)[:, 0].sort()
    return lines[:, _LOW].copy()


def _threshold(scores: Floats, n: int) -> float:
    """A score that about `_SLACK * n` items reach, from every stride-th item; -inf when a sample would not pay."""
    stride = len(scores) // _SAMPLE
    if stride < 2:
        return -np.inf
    sample = scores[::stride]
    wanted = n * _SLACK / stride
    rank = int(wanted + 3 * sqrt(wanted)) + 1  # three deviations more: a second look is rare
    return float(np.partition(sample, len(sample) - rank)[len(sample) - rank]) if rank < len(sample) else -np.inf
