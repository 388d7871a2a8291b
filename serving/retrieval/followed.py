"""What came lately from whom the user follows: channels, authors, brands. Nothing is learnt; an item is known from the moment it is posted.

Shapes: N items that came lately, I items.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from serving.bundle.arrays import ArrayFolder, Floats, Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Hits, Query
from serving.retrieval.source import TowerSides
from serving.system import SourceSpec


@dataclass(frozen=True)
class Newness(ArrayFolder):
    """How long an item counts as new."""

    days: float


@dataclass(frozen=True)
class Followed:
    """Items of the brands that were followed (`serving.event_meanings.Follow`), the newest first; `1 / (1 + days since)` is the score."""

    spec: SourceSpec
    lately: Newness
    catalogue: Catalogue = field(repr=False)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        return cls(spec, Newness.load(folder), catalogue)

    @cached_property
    def _new(self) -> Rows:
        """(N,) rows that a request may find new, newest first; those of unknown date or brand are of nobody."""
        created, catalogue = self.catalogue.created_day, self.catalogue
        rows = np.flatnonzero((created >= catalogue.cut_day - self.lately.days) & (catalogue.brand > 0))
        return rows[np.argsort(-created[rows], kind="stable")].astype(np.int32)

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` newest that the user has not had; nothing of a user who follows nobody."""
        if not len(query.followed):
            return Hits(np.empty(0, np.int32), np.empty(0, np.float32))
        age = query.request.at_day - self.catalogue.created_day[self._new]
        known = np.isin(self.catalogue.brand[self._new], self.catalogue.brand[query.followed])
        out = np.isin(self._new, query.history_rows) | np.isin(self._new, query.excluded)
        found = (age >= 0) & (age < self.lately.days) & known & ~out
        return Hits(self._new[found][:n], (1 / (1 + age[found][:n])).astype(np.float32))

    def reason(self, query: Query, row: int) -> str:
        """Whose it is."""
        catalogue, brand = self.catalogue, int(self.catalogue.brand[row])
        if brand == 0 or brand not in catalogue.brand[query.followed]:
            return ""
        return f"New from {catalogue.brand_names[brand]}, which you follow"

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """The same over a catalogue that holds the posted items."""
        return replace(self, catalogue=catalogue)


def followed(
    *, share: float, days: float = 14, weight: float = 0.1, discover_weight: float = 0.1, offset: float = 20.0
) -> SourceSpec:  # fmt: skip
    """What came in the last `days` from whom the user follows; the system's `events` say which event is a `Follow`."""
    return SourceSpec.of("followed", share, weight, discover_weight, offset, days=days)
