"""Sessions like the present one: what they had beside what this one has looked at. For systems whose users are sessions, known or not.

V-SKNN (Ludewig & Jannach 2018, https://arxiv.org/abs/1803.09587; vector session k nearest neighbours). With the present session's items in
the order they came, the p-th of L weighs p / L:

    likeness(n) = sum of the weights of the items that session n has too
    score(j)    = sum over the neighbours n that have j of likeness(n) / L / step(n)

Neighbours are, of the latest `recent` sessions that share any item, the most alike `neighbours`; step is 1 where n has the newest item, 2
where of all it shares the newest is the one before, and so on.
Plain numpy; some hundreds of sessions of some tens of items a request. Shapes: S sessions, N items of all sessions, I items, L items of
the present session.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held, Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Hits, Query
from serving.retrieval.source import TowerSides
from serving.retrieval.top_k import descending
from serving.system import SourceSpec

LONGEST = 50  # latest items of the present session that count


@dataclass(frozen=True)
class SessionTable(ArrayFolder):
    """The sessions that were, the later the greater their number."""

    items: Annotated[NDArray[np.int32], Held("N", below="I")]  # (N,) item rows, session after session, each item of one once
    ends: Annotated[NDArray[np.int64], Held("S", ends="N")]  # (S,) where each session's items end
    of_item: Annotated[NDArray[np.int32], Held("N", below="S")]  # (N,) sessions that have an item, the latest first, item after item
    item_ends: Annotated[NDArray[np.int64], Held("I", ends="N")]  # (I,) where each item's sessions end
    days: float  # what is older is no part of the present session


@dataclass(frozen=True)
class Sessions:
    """The items of the sessions most like this one."""

    spec: SourceSpec
    table: SessionTable = field(repr=False)

    @classmethod
    def load(cls, folder: Path, spec: SourceSpec, catalogue: Catalogue) -> Self:
        return cls(spec, SessionTable.load(folder, I=len(catalogue)))

    def present(self, query: Query) -> Rows:
        """(L,) the session's items, oldest first: what it had, then what it looked at; each at its last place."""
        history = query.history
        recent = np.flatnonzero(history.age < self.table.days)
        had = history.rows[recent[np.argsort(-history.age[recent], kind="stable")]]
        rows = np.concatenate((had, query.session[0]))[::-1]  # newest first
        first = np.sort(np.unique(rows, return_index=True)[1])[:LONGEST]
        return rows[first][::-1].astype(np.int32)

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The `n` best items that are not in the session itself; none without a session that any other resembles."""
        rows, scores = self.scored(self.present(query))
        kept = np.isin(rows, query.excluded, invert=True) if len(query.excluded) else np.ones(len(rows), np.bool_)
        rows, scores = rows[kept], scores[kept]
        best = descending(scores)[:n]
        return Hits(rows[best], scores[best])

    def scored(self, present: Rows) -> tuple[Rows, Floats]:
        """Items of the sessions most like one with these items (oldest first), those themselves left out, ascending; their scores."""
        neighbours, worth = self._neighbours(present)
        parts = [self._items(session) for session in neighbours.tolist()]
        if not parts:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        rows, at = np.unique(np.concatenate(parts), return_inverse=True)
        scores = np.bincount(at, np.repeat(worth, [len(part) for part in parts]))
        other = np.isin(rows, present, invert=True)
        return rows[other], scores[other].astype(np.float32)

    def _neighbours(self, present: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The sessions most alike, and what each adds to its items' scores."""
        length, recent, count = len(present), int(self.spec.settings["recent"]), int(self.spec.settings["neighbours"])
        shared = [self._having(row)[:recent] for row in present.tolist()]  # of each item; the latest sessions of all are among them
        sizes = [len(sessions) for sessions in shared]
        if not sum(sizes):
            return np.empty(0, np.int64), np.empty(0)
        sessions, at = np.unique(np.concatenate(shared), return_inverse=True)
        likeness = np.bincount(at, np.repeat(np.arange(1, length + 1) / length, sizes))
        step = np.full(len(sessions), length, np.int64)
        np.minimum.at(step, at, np.repeat(np.arange(length, 0, -1), sizes))
        sessions, likeness, step = sessions[-recent:], likeness[-recent:], step[-recent:]
        best = np.lexsort((-sessions, -likeness))[:count]  # of equal ones the later
        return sessions[best].astype(np.int64), likeness[best] / length / step[best]

    def _having(self, row: int) -> NDArray[np.int32]:
        """Sessions that have an item, the latest first; none of an item posted since."""
        ends = self.table.item_ends
        return self.table.of_item[ends[row - 1] if row else 0 : ends[row]] if row < len(ends) else self.table.of_item[:0]

    def _items(self, session: int) -> NDArray[np.int32]:
        ends = self.table.ends
        return self.table.items[ends[session - 1] if session else 0 : ends[session]]

    def reason(self, query: Query, row: int) -> str:
        """The newest item of the session that a session with this one had too."""
        mine = self._having(row)
        for item in self.present(query)[::-1].tolist():
            if item != row and np.isin(self._having(item), mine).any():
                return f"Often {query.verb} with {query.catalogue.readable_title(item)}"
        return ""

    def with_new_items(self, catalogue: Catalogue, sides: TowerSides) -> Self:
        """Itself: no session has had a posted item."""
        return self


def sessions(
    *, share: float, recent: int = 1000, neighbours: int = 100, days: float = 1.0, weight: float = 0.5, discover_weight: float = 0.5,
    offset: float = 10.0,
) -> SourceSpec:  # fmt: skip
    """V-SKNN: of the `recent` sessions that share an item with this one, the most alike `neighbours`; a session's items are of `days`."""
    return SourceSpec.of("sessions", share, weight, discover_weight, offset, recent=recent, neighbours=neighbours, days=days)
