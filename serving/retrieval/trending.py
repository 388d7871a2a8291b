"""What many users had lately: everywhere, in the user's region, in the user's store. Also the lists that answer when nothing else can.

Shapes: G groups (everyone, regions, places), n items a list, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held, Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Hits, Query
from serving.retrieval.source import TowerSides
from serving.system import SourceSpec, Value

EVERYONE, REGION, PLACE = "everyone", "region", "place"
PLAIN: Mapping[str, Value] = {"tau_days": 0, "velocity": False, "smoothing": 200}  # of a source that does not say otherwise


@dataclass(frozen=True)
class Lists(ArrayFolder):
    """One list a group, best first."""

    groups: tuple[str, ...]  # (G,) "everyone", "region:<name>", "place:<name>"
    rows: Annotated[NDArray[np.int32], Held("Gn", -1, "I")]  # (G, n) -1 beyond a list's end
    scores: Annotated[NDArray[np.float32], Held("Gn")]  # (G, n) users, the group's own smoothed by everyone's
    popularity: Annotated[NDArray[np.float32], Held("I")]  # (I,) users everywhere


@dataclass(frozen=True)
class Trending:
    """The list of the narrowest group that has one: store, region, everyone."""

    spec: SourceSpec
    lists: Lists = field(repr=False)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        return cls(spec, Lists.load(folder, I=len(catalogue)))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {group: index for index, group in enumerate(self.lists.groups)}

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The first `n` of the list that are not excluded."""
        request, state = query.request, query.state
        rows, scores = self.prior(request.region or state.region, request.place or state.place)
        if len(query.excluded):
            kept = np.isin(rows, query.excluded, invert=True)
            rows, scores = rows[kept], scores[kept]
        return Hits(rows[:n], scores[:n], self.lists.popularity)

    def reason(self, query: Query, row: int) -> str:
        """Whose list it is on."""
        request, state = query.request, query.state
        group = self._group(request.region or state.region, request.place or state.place)
        if not (self.lists.rows[group] == row).any():
            return ""
        kind = self.lists.groups[group].partition(":")[0]
        return {PLACE: "Popular at your store", REGION: "Popular near you"}.get(kind, "Popular right now")

    def _group(self, region: str, place: str) -> int:
        """The narrowest group with a list of its own."""
        names = (f"{PLACE}:{place}", f"{REGION}:{region}")
        return next((self._index[name] for name in names if name in self._index), 0)

    def prior(self, region: str = "", place: str = "") -> tuple[Rows, Floats]:
        """Rows and scores of the best list for a region or store, best first."""
        group = self._group(region, place)
        length = int(np.searchsorted(-self.lists.rows[group], 1)) if self.lists.rows[group, -1] < 0 else self.lists.rows.shape[1]
        return self.lists.rows[group, :length], self.lists.scores[group, :length]

    def counted(self, query: Query) -> Rows:
        """The list of the narrowest group, then everything anybody had, most users first, ties by row."""
        request, state = query.request, query.state
        listed = self.prior(request.region or state.region, request.place or state.place)[0]
        return np.concatenate((listed, self._all[np.isin(self._all, listed, invert=True)]))

    @cached_property
    def _all(self) -> Rows:
        """Rows anybody had, most users first."""
        order = np.argsort(-self.lists.popularity, kind="stable")
        return order[self.lists.popularity[order] > 0].astype(np.int32)

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """Itself: a posted item is on no list."""
        return self


def trending(
    *, share: float, days: float = 28, tau_days: float = 0, velocity: bool = False, smoothing: float = 200,
    weight: float = 0.02, discover_weight: float = 0.01, offset: float = 60.0,
) -> SourceSpec:  # fmt: skip
    """What many users had in the last `days`.

    `tau_days`: older events count less by e in so long; 0: all alike. `velocity`: users a day of the days it was there, so that what came
    yesterday may lead. `smoothing`: users' worth of everyone's taste in a region's or store's list.
    """
    asked = {"tau_days": tau_days, "velocity": velocity, "smoothing": smoothing}
    more = {name: value for name, value in asked.items() if value != PLAIN[name]}  # what is as ever is not said: bundles keep their names
    return SourceSpec.of("trending", share, weight, discover_weight, offset, days=days, **more)
