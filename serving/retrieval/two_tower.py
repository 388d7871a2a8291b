"""Nearest items to the user's vector. The vector is made by the rankers' `request.onnx` from the user's features and `history_embedding`.

    score(u, i) = user . item_i / temperature + prior_i

Shapes: I items, D dimensions, H history items.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held, Rows
from serving.bundle.catalogue import Catalogue
from serving.native import kernel
from serving.query import Hits, Query
from serving.retrieval.cells import Cells, stretch
from serving.retrieval.int8_scan import products
from serving.retrieval.interest import interest, past
from serving.retrieval.sentences import like_usual, present
from serving.retrieval.source import TowerSides
from serving.retrieval.top_k import select
from serving.system import SourceSpec

BAG_TAU_DAYS = 60.0
NEW_DAYS = 14.0  # an item counts as new that long, and while nobody is known to have had it
FRESH_EVERY = 25  # of the list's places, one for a new item


@dataclass(frozen=True)
class TowerTable(ArrayFolder):
    """What the towers left for each item."""

    vectors: Annotated[NDArray[np.int8], Held("ID", any=True)]  # (I, D) item vectors over their scale
    scales: Annotated[NDArray[np.float32], Held("I")]  # (I,)
    prior: Annotated[NDArray[np.float32], Held("I")]  # (I,)
    history: Annotated[NDArray[np.float16], Held("ID")]  # (I, D) rows of the bag
    temperature: float


@dataclass(frozen=True)
class TwoTower:
    """Search of the int8 table: of all of it, or of the nearest cells where it has some."""

    spec: SourceSpec
    table: TowerTable = field(repr=False)
    new: NDArray[np.bool_] | None = field(default=None, repr=False)  # (I,) at the cut; rows beyond were posted since. None: none is
    cells: Cells | None = field(default=None, repr=False)  # of a catalogue too large to search whole

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        created = catalogue.created_day
        new = np.isnan(created) | (created >= catalogue.cut_day - NEW_DAYS)
        cells = Cells.load(folder / "cells", I=len(catalogue)) if (folder / "cells").is_dir() else None
        return cls(spec, TowerTable.load(folder, I=len(catalogue)), new, cells)

    def history_embedding(self, query: Query) -> Floats:
        """(D,) mean of the history rows of what the user had and looked at, weighted by `interest`; zeros without any."""
        found = kernel.history_embedding(self.table.history, past(query, BAG_TAU_DAYS), len(query.catalogue)) if kernel.native() else None
        if found is not None:
            return found
        rows, weights = interest(query, BAG_TAU_DAYS)
        known = rows < len(self.table.history)
        rows, weights = rows[known], weights[known]
        vectors = self.table.history[rows].astype(np.float32)  # (H + E, D)
        total = np.maximum(weights.sum(), np.float32(1e-6))
        return np.asarray((weights[:, None] * vectors).sum(axis=0) / total, np.float32)

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` items nearest to `vector` (D,); nothing without one."""
        if vector is None:
            return Hits(np.empty(0, np.int32), np.empty(0, np.float32))
        table = self.table
        vector = np.asarray(vector, np.float32).ravel() / np.float32(table.temperature)
        if self.cells is not None:
            return self._near(self.cells, vector, n, query.excluded)
        found = kernel.search(table.vectors, vector, table.scales, table.prior, self._is_fresh, FRESH_EVERY, n, query.excluded)
        if found is not None:
            rows, scores, values = found
            return Hits(rows, scores, values)
        values = products(table.vectors, vector, table.scales, table.prior)  # (I,)
        rows = self._with_fresh(select(values, n, query.excluded), values, n, query.excluded)
        return Hits(rows, values[rows], values)

    def _near(self, cells: Cells, vector: Floats, n: int, excluded: Rows) -> Hits:
        """From the nearest cells, and whatever was posted since they were made."""
        table, posted = self.table, slice(len(cells.rows), None)
        begins, ends = cells.near(vector)
        rows = np.concatenate((stretch(cells.rows, begins, ends), np.arange(len(cells.rows), len(table.vectors), dtype=np.int32)))
        scores = kernel.spans(cells.vectors, vector, cells.scales, cells.prior, begins, ends)
        if scores is None:
            parts = (stretch(values, begins, ends) for values in (cells.vectors, cells.scales, cells.prior))
            scores = products(next(parts), vector, *parts)
        if len(rows) > len(scores):
            scores = np.concatenate((scores, products(table.vectors[posted], vector, table.scales[posted], table.prior[posted])))
        best = select(scores, n + len(excluded))
        best = best[np.isin(rows[best], excluded, invert=True)][:n] if len(excluded) else best
        return Hits(rows[best], scores[best])

    def reason(self, query: Query, row: int) -> str:
        """The user's vector is made of their history: what of it is of the item's category, else the history as a whole."""
        return like_usual(query, row) or (f"Similar to what you usually {present(query.verb)}" if len(query.history_rows) else "")

    def alike(self, row: int, n: int, excluded: Rows) -> Hits:
        """The nearest by cosine of the item tower's vectors, which read content too: of an item never sold there are some."""
        table, lengths = self.table, self._lengths
        if row >= len(lengths) or not lengths[row]:
            return Hits(np.empty(0, np.int32), np.empty(0, np.float32))
        asked = table.vectors[row].astype(np.float32) * (table.scales[row] / lengths[row])
        cosines = products(table.vectors, asked) * (table.scales / np.maximum(lengths, np.float32(1e-12)))
        values: Floats = cosines.astype(np.float32)  # (I,)
        rows = select(values, n, np.append(excluded, np.int32(row)))
        return Hits(rows, values[rows])

    def likeness(self, verb: str, title: str) -> str:
        return f"Similar to {title}"

    @property
    def temperature(self) -> float:
        return self.table.temperature

    def item_vectors(self) -> tuple[Floats, Floats]:
        """As they are searched: what is kept in int8, times its scale."""
        return self.table.vectors.astype(np.float32) * np.asarray(self.table.scales)[:, None], np.asarray(self.table.prior)

    @cached_property
    def _lengths(self) -> Floats:
        """(I,) of the vectors as they are kept."""
        squares = np.einsum("ij,ij->i", self.table.vectors, self.table.vectors, dtype=np.int32)
        return np.asarray(np.sqrt(squares) * self.table.scales, np.float32)

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """The table with a row for each posted item; itself where the release has no item tower."""
        table, vectors = self.table, sides.vector
        if not vectors.shape[1]:
            return self
        scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127  # (n,) as the exported ones: one scale a row
        leaf, count = catalogue.category[:, -1], len(table.prior)
        rows: dict[str, Callable[[int], NDArray[Any]]] = {
            "vectors": lambda first: np.round(vectors[first:] / scales[first:, None]).astype(np.int8),
            "scales": lambda first: scales[first:].astype(np.float32),
            "prior": lambda first: usual_priors(table.prior, leaf[:count], leaf[count + first :]),
            "history": lambda first: sides.history[first:].astype(np.float16),
        }
        grown: dict[str, Any] = {name: sides.behind(f"{self.spec.kind} {name}", getattr(table, name), made) for name, made in rows.items()}
        return replace(self, table=replace(table, **grown))

    @cached_property
    def fresh(self) -> Rows:
        """Rows of new items, ascending: those new at the cut, and all posted since."""
        if self.new is None:
            return np.empty(0, np.int32)
        return np.concatenate([np.flatnonzero(self.new), np.arange(len(self.new), len(self.table.vectors))]).astype(np.int32)

    @cached_property
    def _is_fresh(self) -> NDArray[np.bool_]:
        found = np.zeros(len(self.table.vectors), np.bool_)
        found[self.fresh] = True
        return found

    def _with_fresh(self, rows: Rows, scores: Floats, n: int, excluded: Rows) -> Rows:
        """Every `FRESH_EVERY`-th place for the best new item: without a prior it would never be shown, and never earn one."""
        slots = np.arange(FRESH_EVERY - 1, n, FRESH_EVERY)
        best = self._best_fresh(scores, len(slots), excluded)
        kept = np.ones(len(rows), np.bool_)
        kept[np.flatnonzero(self._is_fresh[rows])[: len(best)]] = False  # the same items: both lists are in the order of the scores
        others = rows[kept][: n - len(best)]
        slots = np.minimum(slots[: len(best)], len(others) + np.arange(len(best)))
        mixed, given = np.empty(len(others) + len(best), np.int32), np.ones(len(others) + len(best), np.bool_)
        given[slots] = False
        mixed[slots], mixed[given] = best, others
        return mixed

    def _best_fresh(self, scores: Floats, n: int, excluded: Rows) -> Rows:
        """Of the new items the `n` best, none of `excluded`."""
        found = self.fresh[select(scores[self.fresh], n + len(excluded))]
        return found[np.isin(found, excluded, invert=True)][:n] if len(excluded) else found


def usual_priors(prior: Floats, known: NDArray[np.int32], posted: NDArray[np.int32]) -> Floats:
    """(n,) the median prior of the items of the same category: nothing is counted of a posted item, so it is taken for a usual one.

    `known` (I,), `posted` (n,): the finest category code of each item, 0 unknown.
    """
    overall = np.float32(np.median(prior)) if len(posted) else np.float32(0)
    found = []
    for code in posted:
        alike = prior[known == code] if code else prior[:0]
        found.append(np.float32(np.median(alike)) if len(alike) else overall)
    return np.array(found, np.float32)


def two_tower(
    *, share: float, dimensions: int = 64, weight: float = 0.15, discover_weight: float = 0.15, offset: float = 60.0
) -> SourceSpec:  # fmt: skip
    """Nearest items to the user's vector; the item tower reads content, so an item never sold has a vector too."""
    return SourceSpec.of("two_tower", share, weight, discover_weight, offset, dimensions=dimensions)
