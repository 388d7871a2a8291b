"""Linear item-item: every item of the history votes for its neighbours.

EASE (Steck 2019, https://arxiv.org/abs/1905.03375): the score of item j is sum_i x_i B_ij over the history x, with B's diagonal zero. Of
each row of B the entries greatest in size are kept, negative ones too (they carry a tenth of R@100 on repeats).
Shapes: I items, M items with neighbours, K neighbours, H history items.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held, Rows
from serving.bundle.catalogue import Catalogue
from serving.native import kernel
from serving.query import Hits, Query
from serving.retrieval.interest import interest, past, positions
from serving.retrieval.source import TowerSides
from serving.retrieval.top_k import select
from serving.system import SourceSpec

HISTORY_LIMIT = (
    128  # heaviest history items that vote. Choosing week, all N@10 and new R@1000: .3407 .335 with 256, .3413 .334, .3407 .331 with 64
)


@dataclass(frozen=True)
class Neighbours(ArrayFolder):
    """The kept entries of B, quantised: B[rows[m], rows[neighbours[m, k]]] = weights[m, k] * scales[m]."""

    rows: Annotated[NDArray[np.int32], Held("M", below="I")]  # (M,) item row of each position, ascending
    position_of: Annotated[NDArray[np.int32], Held("I", -1, "M")]  # (I,) its inverse; -1 where the item has no neighbours
    neighbours: Annotated[NDArray[np.uint16] | NDArray[np.int32], Held("MK", below="M")]  # (M, K) positions
    weights: Annotated[NDArray[np.int16], Held("MK", any=True)]  # (M, K)
    scales: Annotated[NDArray[np.float32], Held("M")]  # (M,)
    tau_days: float


@dataclass(frozen=True)
class Linear:
    """Scores every item that any history item is a neighbour of."""

    spec: SourceSpec
    table: Neighbours = field(repr=False)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        return cls(spec, Neighbours.load(folder, I=len(catalogue)))

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` items with the greatest positive scores; `values` holds negative ones too."""
        table = self.table
        excluded = query.excluded
        barred = positions(excluded, table.position_of)[0] if len(excluded) else excluded
        found = None
        if kernel.native():
            found = kernel.item_item(table, past(query, table.tau_days), HISTORY_LIMIT, len(query.catalogue), barred, n)
        rows, scores, votes = found if found is not None else self._votes(*interest(query, table.tau_days, HISTORY_LIMIT), barred, n)
        return Hits(rows, scores, votes, table.position_of) if len(votes) else Hits(rows, scores)

    def reason(self, query: Query, row: int) -> str:
        """The item of history or session that says most for it."""
        nearest = self.nearest(query, row)
        if nearest < 0:
            return ""
        verb = query.verb if query.history.position_of(nearest) >= 0 else "looked at"
        return f"Often {query.verb} with {query.catalogue.readable_title(nearest)}, which you {verb}"

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """Itself: nobody has had a posted item, so nothing votes for it."""
        return self

    def contributions(self, query: Query, row: int) -> tuple[Rows, Floats]:
        """Exactly what item `row` scores: rows of history and session with their parts, greatest first; the parts sum to the score."""
        table = self.table
        found, weights = self.voters(query)
        target = table.position_of[row] if row < len(table.position_of) else -1
        if target < 0 or not len(found):
            return np.empty(0, np.int32), np.empty(0, np.float32)
        voter, slot = np.nonzero(table.neighbours[found] == target)
        parts = table.weights[found[voter], slot] * weights[voter]
        order = np.argsort(-parts, kind="stable")
        return table.rows[found[voter[order]]], parts[order].astype(np.float32)

    def alike(self, row: int, n: int, excluded: Rows) -> Hits:
        """The neighbours that the item votes for, by its own row of B."""
        table = self.table
        at = int(table.position_of[row]) if row < len(table.position_of) else -1
        if at < 0:
            return Hits(np.empty(0, np.int32), np.empty(0, np.float32))
        rows, scores = table.rows[table.neighbours[at]], table.weights[at] * table.scales[at]
        kept = (scores > 0) & np.isin(rows, excluded, invert=True) & (rows != row)
        order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind="stable")][:n]
        return Hits(rows[order], scores[order].astype(np.float32))

    def likeness(self, verb: str, title: str) -> str:
        return f"Often {verb} with {title}"

    def voters(self, query: Query) -> tuple[NDArray[np.int32], Floats]:
        """Positions in the table and weights of what speaks for this user's items."""
        return self._voters(*interest(query, self.table.tau_days, HISTORY_LIMIT))

    def nearest(self, query: Query, row: int) -> int:
        """The row that says most for item `row`, the first of `contributions`; -1 where none says anything for it."""
        table, (found, weights) = self.table, query.once(("voters", self.spec.kind), lambda: self.voters(query))
        target = int(table.position_of[row]) if row < len(table.position_of) else -1
        if target < 0 or not len(found):
            return -1
        voter, slot = np.nonzero(table.neighbours[found] == target)
        parts = table.weights[found[voter], slot] * weights[voter]
        return int(table.rows[found[voter[parts.argmax()]]]) if len(parts) and parts.max() > 0 else -1

    def _voters(self, rows: Rows, weights: Floats) -> tuple[NDArray[np.int32], Floats]:
        """Positions in the table and weights (times the row's scale) of the history items that have neighbours."""
        found, inside = positions(rows, self.table.position_of)
        return found, weights[inside] * self.table.scales[found]

    def _votes(self, rows: Rows, weights: Floats, barred: Rows, n: int) -> tuple[Rows, Floats, Floats]:
        """Rows and scores of the `n` best above 0, and the votes (M,) for all; nothing of any when no row had a vote."""
        table, (found, weights) = self.table, self._voters(rows, weights)
        if not len(found):
            return np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float32)
        parts = table.weights[found] * weights[:, None]  # (H, K)
        votes = np.bincount(table.neighbours[found].ravel(), parts.ravel(), minlength=len(table.rows)).astype(np.float32)  # (M,)
        best = select(votes, n, barred, floor=0.0)
        return table.rows[best], votes[best], votes


def linear(
    *, share: float, neighbours: int = 200, weight: float = 0.1, discover_weight: float = 0.03, offset: float = 10.0
) -> SourceSpec:  # fmt: skip
    """Linear item-item (EASE, Steck 2019) on time-decayed log counts, the top neighbours of each item kept."""
    return SourceSpec.of("linear", share, weight, discover_weight, offset, neighbours=neighbours)
