"""What nobody has had yet, or only since a few days: what an item is, against what the user goes for, times what such items find.

    score(u, i) = found(i) * planned(i) * prod_g lift_g(u, g(i)) ** POWER
    lift_g(u, c) = (A_uc + k share_c) / ((A_u + k) share_c)      A: the user's decayed counts, share: everyone's

`found` is the number of users to expect, learnt from the items that were new in the weeks before
(`components/retrieval/arrivals.py`). Nothing of it is of the item alone, so one posted a moment ago has it too.
Shapes: I items, A arrivals, G groupings, N codes of all groupings together, P prices between two bands.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held, Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Hits, Query
from serving.retrieval.interest import counts, positions
from serving.retrieval.sentences import like_usual, planned
from serving.retrieval.source import TowerSides
from serving.retrieval.top_k import select
from serving.system import SourceSpec

# Chosen on the choosing week.
POWER = 0.3  # of every lift
DISPLAY, MAILER = 1.2, 0.6  # what is planned anywhere finds so many times more users, beside once


@dataclass(frozen=True)
class Debuts(ArrayFolder):
    """The items that are new at the cut, and what is expected of others by what they are."""

    rows: Annotated[NDArray[np.int32], Held("A", below="I")]  # (A,) ascending
    found: Annotated[NDArray[np.float32], Held("A")]  # (A,) users to expect
    prices: Annotated[NDArray[np.float32], Held("P")]  # (P,) where a band of prices ends and the next begins
    share_ends: Annotated[NDArray[np.int64], Held("G", ends="N")]  # (G,) where each grouping's codes end
    shares: Annotated[NDArray[np.float32], Held("N")]  # share of all counts of each code, grouping after grouping
    factors: Annotated[NDArray[np.float32], Held("N")]  # what each code adds to the log of `found`
    posted: float  # log of `found` of an item posted since, but for its codes
    tau_days: float
    prior_counts: float  # k of the lifts
    items: int  # I


@dataclass(frozen=True)
class Arrivals:
    """The user's affinity to what a new item is, times what such items find."""

    spec: SourceSpec
    catalogue: Catalogue = field(repr=False)
    debuts: Debuts = field(repr=False)
    rows: Rows = field(repr=False)  # (A,) with what was posted since behind them
    found: Floats = field(repr=False)  # (A,)
    worth: dict[int, Floats] = field(default_factory=dict, repr=False)  # planned period -> (A,)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        debuts = Debuts.load(folder, I=len(catalogue))
        return cls(spec, catalogue, debuts, np.asarray(debuts.rows), np.asarray(debuts.found))

    @cached_property
    def codes(self) -> NDArray[np.int32]:
        """(I, G) place of each item's codes among all; N for one that nobody has had anything of."""
        begins, ends = np.append(0, self.debuts.share_ends[:-1]), self.debuts.share_ends
        codes = grouped(self.catalogue, self.debuts.prices) + begins
        return np.where(codes < ends, codes, ends[-1]).astype(np.int32)

    @cached_property
    def _of_rows(self) -> NDArray[np.int32]:
        """(G, A) the same of the arrivals alone."""
        return np.ascontiguousarray(self.codes[self.rows].T)

    @cached_property
    def _position_of(self) -> NDArray[np.int32]:
        """(I,) of an item among the arrivals; -1 for an old one."""
        found = np.full(len(self.catalogue), -1, np.int32)
        found[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return found

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` best new items that the user has not had."""
        values = self._worth(self.catalogue.plan_at(query.request.at_day)) * self._lifts(query)[self._of_rows].prod(axis=0)  # (A,)
        out = [positions(rows, self._position_of)[0] for rows in (query.history_rows, query.excluded) if len(rows)]
        best = select(values, n, np.concatenate(out) if out else query.excluded, floor=0.0)
        return Hits(self.rows[best], values[best], values, self._position_of)

    def reason(self, query: Query, row: int) -> str:
        """That it is new, with the category where the user goes for that, or the plan of the user's store."""
        return planned(query, row) or like_usual(query, row).replace("Like", "New, like", 1) or self._new_in(query, row)

    def _new_in(self, query: Query, row: int) -> str:
        category = query.catalogue.readable_category(row)
        return f"New in {category}" if category else "New"

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """With every posted item among the arrivals, by what it is."""
        posted = np.arange(self.debuts.items, len(catalogue), dtype=np.int32)
        grown = replace(self, catalogue=catalogue, rows=np.concatenate((np.asarray(self.debuts.rows), posted)), worth={})
        factors = np.append(self.debuts.factors, np.float32(0))[grown.codes[posted]].sum(axis=1)
        found = np.exp(self.debuts.posted + factors).astype(np.float32)
        return replace(grown, found=np.concatenate((np.asarray(self.debuts.found), found)))

    def _lifts(self, query: Query) -> Floats:
        """(N + 1,) how much more the user goes for each code than everyone does, to the power; 1 where unknown, and without history."""
        debuts, codes = self.debuts, len(self.debuts.shares)
        weights = np.concatenate((counts(query, debuts.tau_days), query.session[1]))  # (H + E,)
        of_items = self.codes[query.rows]  # (H + E, G)
        own = np.bincount(of_items.ravel(), np.repeat(weights, of_items.shape[1]), minlength=codes + 1)[:codes]  # (N,)
        total = float(weights.sum()) + debuts.prior_counts
        lifts = np.full(codes + 1, (debuts.prior_counts / total) ** POWER, np.float32)
        met = np.flatnonzero(own)
        lifts[met] = ((own[met] / debuts.shares[met] + debuts.prior_counts) / total) ** POWER
        lifts[[codes, 0, *debuts.share_ends[:-1]]] = 1  # the first code of each grouping is the unknown one
        return lifts

    def _worth(self, period: int) -> Floats:
        """(A,) users to expect in a planned period."""
        if period not in self.worth:
            self.worth[period] = (self.found * planned_anywhere(self.catalogue, period, self.rows)).astype(np.float32)
        return self.worth[period]


def planned_anywhere(catalogue: Catalogue, period: int, rows: Rows) -> Floats:
    """(A,) the factor of what is planned for any place in a period; 1 where none is (-1)."""
    if period < 0 or not catalogue.places:
        return np.ones(len(rows), np.float32)
    displayed, mailed = ((plan[period][:, rows] > 0).any(axis=0) for plan in (catalogue.plan_display, catalogue.plan_mailer))
    return ((1 + DISPLAY * displayed) * (1 + MAILER * mailed)).astype(np.float32)


def grouped(catalogue: Catalogue, prices: Floats) -> NDArray[np.int64]:
    """(I, G) codes of each item: category path down to each level, brand, band of its price; 0 unknown."""
    price = np.asarray(catalogue.price)
    band = np.where(np.isnan(price), 0, 1 + np.searchsorted(prices, price))
    return np.column_stack((catalogue.category, catalogue.brand, band)).astype(np.int64)


def arrivals(
    *, share: float, days: float = 14, weight: float = 0.02, discover_weight: float = 0.02, offset: float = 60.0
) -> SourceSpec:  # fmt: skip
    """What nobody has had yet, or only in the last `days`, by what it is. Its `share` of the pool is what new items are shown by."""
    return SourceSpec.of("arrivals", share, weight, discover_weight, offset, days=days)
