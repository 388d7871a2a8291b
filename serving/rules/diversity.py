"""Maximal marginal relevance (Carbonell, Goldstein 1998): each next item is worth its score less its likeness to those before it.

Shapes: M items, L group columns, k wanted.
"""

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats


def marginal_order(scores: Floats, codes: NDArray[np.int32], strength: float, k: int) -> NDArray[np.intp]:
    """All M positions: the first k chosen greedily by (1 - strength) x score - strength x likeness to the likest chosen, the rest in order.

    Scores (M,) are spread over 0 to 1; the likeness of two items is the share of the group columns `codes` (L, M) they agree in, code 0
    (unknown) agreeing with none. Ties by position.
    """
    like = ((codes[:, :, None] == codes[:, None, :]) & (codes > 0)[:, :, None]).mean(0)  # (M, M)
    span = float(scores.max() - scores.min()) or 1.0
    worth = (scores - scores.min()) / span * (1 - strength)  # (M,)
    likest = np.zeros(len(scores))
    taken = []
    for _ in range(min(k, len(scores))):
        at = int(np.argmax(worth - strength * likest))
        taken.append(at)
        worth[at] = -np.inf
        np.maximum(likest, like[at], out=likest)
    rest = np.ones(len(scores), bool)
    rest[taken] = False
    return np.concatenate((taken, np.flatnonzero(rest))).astype(np.intp)
