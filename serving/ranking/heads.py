"""A ranker's heads as arrays: which candidates each judges, and how their logits become one score.

Shapes: C candidates, H heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Mask, Rows
from serving.native import kernel
from serving.objectives import Objective

MOST_WORTH = 1e4  # usual values that a weighted head may expect: keeps a wild logit finite


@dataclass(frozen=True)
class Heads:
    """In the order of the logits' columns."""

    names: tuple[str, ...]
    weights: NDArray[np.float64]  # (H,) in the score; the greatest is 1
    floors: NDArray[np.float64]  # (H,) f of 1 / (f + exp(-logit)): 1 gives a probability, almost 0 an expected value
    judges: Mask  # (2, H) whether a head judges items not had before (row 0), had before (row 1)

    @classmethod
    def of(cls, objectives: Mapping[str, Objective]) -> Self:
        asked = [one.asked for one in objectives.values()]
        weights = np.array([one.weight for one in objectives.values()], np.float64)
        return cls(
            names=tuple(objectives),
            weights=weights / max(weights.max(initial=0.0), 1e-9),
            floors=np.array([1 / MOST_WORTH if one.loss == "weighted" else 1.0 for one in objectives.values()]),
            judges=np.array([[word != "again" for word in asked], [word != "first" for word in asked]], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.names)

    def judging(self, seen: Mask) -> Mask:
        """(C, H) which heads judge each candidate, by whether the user had it before."""
        return self.judges[np.asarray(seen, np.intp)]

    def logit(self, logits: Floats, seen: Mask) -> Floats:
        """(C,) of logits (C, H) the mean over the heads that judge each candidate, by their weights: what an explanation takes apart."""
        shares = np.where(self.judging(seen), self.weights, 0.0)
        total = shares.sum(axis=1)
        return ((shares * logits).sum(axis=1) / np.where(total > 0, total, 1.0)).astype(np.float32)

    def scores(self, logits: Floats, seen: Mask, lift: Floats | None = None, at: Rows | None = None) -> Floats:
        """The one score an answer is ordered by: (C,), higher is better. `lift` (C,) is added to all logits.

        Heads are calibrated: what each says will come of showing the item (a probability, or a value over the usual one), times its weight,
        summed over the heads that judge it, is the worth of showing it. With `at` (K,) the logits (K, H) and the scores (K,) are of the
        candidates at these positions.
        """
        compiled = kernel.final_scores(logits, seen, lift, self, at)
        if compiled is not None:
            return compiled
        if at is not None:
            seen, lift = seen[at], None if lift is None else lift[at]
        own = logits if lift is None else logits + lift[:, None]
        worth = np.where(self.judging(seen), self.weights / (self.floors + np.exp(-own.astype(np.float64))), 0.0)  # (C, H)
        total = np.zeros(len(worth))
        for head in worth.T:  # in order: the compiled loop's sum
            total += head
        return total.astype(np.float32)
