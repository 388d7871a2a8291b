"""Videos found by a group they are of (a language, a channel, a language's category): newest first, or most watched first.

Shapes: V videos, G groups.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.data.video import words
from components.data.video.catalogue import Library
from components.data.video.population import Floats, Ints

DECAY_DAYS = 2.0  # a watch counts 1/e after so long
_APART = 1 << 32


@dataclass(frozen=True)
class VideoShelf:
    """Rows of each group, in their order."""

    rows: Ints  # (V,) group after group
    starts: NDArray[np.int64]  # (G + 1,)

    @classmethod
    def of(cls, group: NDArray[np.integer], rows: NDArray[np.integer], groups: int) -> Self:
        """`rows` in their order, parted by `group` (V,)."""
        parted = rows[np.argsort(group[rows], kind="stable")]
        return cls(parted.astype(np.int32), np.searchsorted(group[parted], np.arange(groups + 1)))

    def pick(self, group: NDArray[np.integer], place: NDArray[np.integer]) -> Ints:
        """The row at each place of each group, counted from its first; -1 where the group has no such place."""
        at = self.starts[group] + place
        there = (group >= 0) & (place >= 0) & (at < self.starts[np.maximum(group, 0) + 1])
        return np.where(there, self.rows[np.where(there, at, 0)], -1).astype(np.int32)

    def before(self, group: NDArray[np.integer], row: int) -> NDArray[np.int64]:
        """How many of each group's rows are less than `row`; for shelves in the order of rows."""
        groups = np.arange(len(self.starts) - 1)
        ends = np.searchsorted(self._keys, groups * _APART + row)
        return (ends - self.starts[:-1])[np.maximum(group, 0)]

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """(V,) ascending: a group's rows stand apart from the next one's."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts)) * _APART + self.rows


@dataclass
class Counts:
    """What a platform sees of its own traffic: lately watched, as a sum that decays."""

    watched: Floats  # (V,)
    day: float

    def copy(self) -> "Counts":
        return Counts(self.watched.copy(), self.day)

    @classmethod
    def at_first(cls, random: np.random.Generator, library: Library) -> Self:
        """What was watched before the first day, which nobody recorded: better and newer videos more."""
        age = np.maximum(-library.created_day, 0)
        mean = np.where(library.created_day < 0, np.exp(0.7 * library.quality - age / 20), 0)
        return cls((0.5 * random.poisson(3 * mean)).astype(np.float32), 0.0)

    def note(self, rows: NDArray[np.integer], day: float) -> None:
        """Those rows were watched around that day."""
        self.watched *= np.float32(np.exp(-max(day - self.day, 0) / DECAY_DAYS))
        self.watched += np.bincount(rows, minlength=len(self.watched)).astype(np.float32)
        self.day = max(day, self.day)

    def best_first(self, library: Library, there: int) -> NDArray[np.int64]:
        """The rows that may be shown and are uploaded, most watched first, new before old among equals."""
        rows = np.flatnonzero(library.showable[:there])
        return rows[np.lexsort((-rows, -self.watched[rows]))]


def by_label(library: Library) -> NDArray[np.int64]:
    """(V,) the group of each video's language and public category."""
    return library.language.astype(np.int64) * len(words.TOPICS) + library.label
