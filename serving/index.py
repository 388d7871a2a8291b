"""The best n of many: exact selection from scores, and nearest-item search, in plain numpy.

Selection: a threshold from a sample of the scores, then a sort of the few survivors (serving.md section 2); exact by construction, because
everything is looked at again whenever fewer than n survive. Shapes: I items, n asked.
"""

import numpy as np

from serving.query import Floats, Rows

_SAMPLE = 4096  # scores looked at to set the threshold
_SLACK = 1.3  # survivors aimed at, over n


def select(scores: Floats, n: int, excluded: Rows | None = None, floor: float = -np.inf) -> Rows:
    """Rows of the `n` greatest `scores` (I,) above `floor`, best first, ties by row; none of `excluded`.

    `scores` is written to while it runs and left as it was.
    """
    if excluded is not None and len(excluded):
        kept = scores[excluded]
        scores[excluded] = -np.inf
        found = select(scores, n, None, floor)
        scores[excluded] = kept
        return found
    threshold = _threshold(scores, n)
    survivors = np.flatnonzero(scores >= threshold) if threshold > floor else np.flatnonzero(scores > floor)
    if len(survivors) < n and threshold > floor:
        survivors = np.flatnonzero(scores > floor)
    values = scores[survivors]
    if len(survivors) > 2 * n:
        near = values >= np.partition(values, len(values) - n)[len(values) - n]
        survivors, values = survivors[near], values[near]
    return survivors[np.argsort(-values, kind="stable")[:n]].astype(np.int32)


def _threshold(scores: Floats, n: int) -> float:
    """A score that about `_SLACK * n` items reach, from every stride-th item; -inf when a sample would not pay."""
    stride = len(scores) // _SAMPLE
    if stride < 2:
        return -np.inf
    sample = scores[::stride]
    wanted = n * _SLACK / stride
    rank = int(wanted + 3 * np.sqrt(wanted)) + 1  # three deviations more: a second look is rare
    return float(np.partition(sample, len(sample) - rank)[len(sample) - rank]) if rank < len(sample) else -np.inf
