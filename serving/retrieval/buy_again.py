"""What the user has had, most alive first: a repeat domain's first source (half of a week's basket was bought before)."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held
from serving.bundle.catalogue import Catalogue
from serving.native import kernel
from serving.query import Hits, Query
from serving.retrieval.interest import counts, past
from serving.retrieval.sentences import had
from serving.retrieval.source import Given, TowerSides
from serving.retrieval.top_k import descending
from serving.system import SourceSpec

_FEW_AGAIN = 0.01  # share of repeats below which nothing is bought again


@dataclass(frozen=True)
class Habits(ArrayFolder):
    """How readily each item is bought again."""

    factor: Annotated[NDArray[np.float32], Held("I")]  # (I,) (share of buyers who came back for it, smoothed) ** power
    tau_days: float


@dataclass(frozen=True)
class BuyAgain:
    """Decayed counts x rebuy(item) ** power; an item looked at in this session counts that much more. Shapes: H history items, I items."""

    spec: SourceSpec
    habits: Habits = field(repr=False)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        return cls(spec, Habits.load(folder, I=len(catalogue)))

    @cached_property
    def usual(self) -> float:
        """The factor of an item posted since the fit."""
        return float(np.median(self.habits.factor)) if len(self.habits.factor) else 1.0

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` history items with the greatest decayed counts; none when only new items are asked for."""
        rows = query.history_rows
        if query.request.discover or not len(rows):
            return Hits(rows[:0], np.empty(0, np.float32))
        if len(query.refused):
            best = self._best(query, len(rows))
            kept = np.isin(best.rows, query.refused, invert=True)
            return Hits(best.rows[kept][:n], best.scores[kept][:n])
        return self._best(query, n)

    def _best(self, query: Query, n: int) -> Hits:
        """The `n` of the history with the greatest scores."""
        rows, habits = query.history_rows, self.habits
        if kernel.native():
            found = kernel.buy_again(habits.factor, self.usual, past(query, habits.tau_days), len(query.catalogue), n)
            if found is not None:
                return Hits(*found)
        clicked, weights = query.session
        at = np.minimum(np.searchsorted(rows, clicked), len(rows) - 1)
        had = rows[at] == clicked
        looked_at = np.bincount(at[had], weights[had], minlength=len(rows)).astype(np.float32)  # (H,)
        known = rows < len(habits.factor)
        factors = np.where(known, habits.factor[np.where(known, rows, 0)], np.float32(self.usual))
        scores = (counts(query, habits.tau_days) + looked_at) * factors
        order = descending(scores)[:n]
        return Hits(rows[order], scores[order])

    def reason(self, query: Query, row: int) -> str:
        """How often the user had it, and when last."""
        return had(query, row)

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """Itself: a posted item comes from a history, and counts by the `usual` factor."""
        return self

    @classmethod
    def lacks(cls, given: Given) -> str:
        """Repeats, where hardly anything is of an item the user had before."""
        if given.again >= _FEW_AGAIN:
            return ""
        return f"{given.again:.1%} of {' and '.join(given.positives) or 'the positives'} are of an item the user had before"


def buy_again(
    *, share: float, tau_days: float = 90, weight: float = 0.6, discover_weight: float = 0.0, offset: float = 10.0
) -> SourceSpec:  # fmt: skip
    """What the user has had, by time-decayed counts. `weight` in the fused rank, `discover_weight` where only new items are asked for."""
    return SourceSpec.of("buy_again", share, weight, discover_weight, offset, tau_days=tau_days)
