"""Why an item is in the list: one plain sentence a user may read, made from the source that ranked it best.

Shapes: k answer length, C candidates, S sources.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Rows
from serving.native import kernel
from serving.query import Candidates, Query
from serving.retrieval.source import Source
from serving.system import System

_NAMED = 50  # items of a list whose nearest item of the history is looked for and named
Told = tuple[tuple[str, ...], str]  # sources, best rank first; the sentence


class Reasons:
    """Sentences in the words of one system (its noun and verb)."""

    def __init__(self, system: System, sources: Sequence[Source]) -> None:
        self.system = system
        self.kinds = tuple(source.spec.kind for source in sources)
        self._sources = {source.spec.kind: source for source in sources}
        self._ordered: dict[tuple[int, ...], tuple[str, ...]] = {}  # numbers of sources -> their kinds
        self._voters: tuple[Query, Any] | None = None  # what speaks for the items of the query last told of
        self._sentences = {
            "linear": self._linear,
            "two_tower": self._two_tower,
            "category_promotion": self._category_promotion,
        }

    def tell(self, query: Query, pool: Candidates | None, rows: Rows) -> list[Told]:
        """Sources and sentence of each row, in order: (k,). A row outside the pool was filled up from a popular list."""
        entries = zip(rows.tolist(), known(pool, query.history_rows, rows), strict=True)
        return [self._told(query, row, order, had, position < _NAMED) for position, (row, (order, had)) in enumerate(entries)]

    def sentence(self, query: Query, row: int, kinds: tuple[str, ...]) -> str:
        """What a user may read. What they had before is said first, whatever source brought it."""
        had = _position(query.history_rows, row)
        return self._had(query, had) if had >= 0 else self._of_new(query, row, kinds, True)

    def _told(self, query: Query, row: int, order: tuple[int, ...] | None, had: int, named: bool) -> Told:
        kinds = self._kinds_in(order or ())
        sentence = self._had(query, had) if had >= 0 else self._of_new(query, row, kinds, named)
        return kinds or (("popular",) if order is None else ("batch",)), sentence

    def _kinds_in(self, order: tuple[int, ...]) -> tuple[str, ...]:
        kinds = self._ordered.get(order)
        if kinds is None:
            kinds = self._ordered[order] = tuple(self.kinds[s] for s in order)
        return kinds

    def _of_new(self, query: Query, row: int, kinds: tuple[str, ...], named: bool) -> str:
        """What is said of an item the user has not had. `named`: look for the nearest item of the history."""
        for kind in kinds:
            if kind == "linear" and not named:
                return f"Often {self.system.verb} with what you {self.system.verb}"
            told = self._sentences[kind](query, row) if kind in self._sentences else ""
            if told:
                return told
        return "Popular near you" if query.request.region or query.state.region else "Popular right now"

    def _had(self, query: Query, at: int) -> str:
        """What is said of the history's item at a position."""
        history, verb = query.history, self.system.verb
        count, days = round(history.counts.item(at)), int(history.age.item(at))
        when = "today" if days < 1 else "yesterday" if days < 2 else f"{days} days ago"
        return f"You {verb} it {when}" if count <= 1 else f"You {verb} it {count} times, last {when}"

    def _linear(self, query: Query, row: int) -> str:
        nearest = self._nearest(query, row)
        if nearest < 0:
            return ""
        verb = self.system.verb if _position(query.history_rows, nearest) >= 0 else "looked at"
        return f"Often {self.system.verb} with {_name(query, nearest)}, which you {verb}"

    def _nearest(self, query: Query, row: int) -> int:
        """The item of the history that the linear source says most for this one; -1 where it says nothing."""
        source: Any = self._sources.get("linear")
        if source is None or not hasattr(source, "nearest"):
            return -1
        last = self._voters
        if last is None or last[0] is not query:
            last = self._voters = (query, source.voters(query))
        nearest: int = source.nearest(last[1], row)
        return nearest

    def _two_tower(self, query: Query, row: int) -> str:
        category = query.catalogue.category_name(row)
        return (
            f"Like what you usually {_present(self.system.verb)} in {_readable(category)}"
            if category != "unknown" and len(query.history_rows)
            else ""
        )

    def _category_promotion(self, query: Query, row: int) -> str:
        catalogue, place = query.catalogue, query.place
        period = catalogue.plan_at(query.request.at_day)
        if period >= 0 and place >= 0:
            if catalogue.plan_mailer[period, place, row]:
                return "In the mailer at your store this week"
            if catalogue.plan_display[period, place, row]:
                return "On display at your store this week"
        category = catalogue.category_name(row)
        return f"Popular in {_readable(category)}" if category != "unknown" else ""


def known(pool: Candidates | None, history: Rows, rows: Rows) -> list[tuple[tuple[int, ...] | None, int]]:
    """Of each row (k,): the sources that returned it, best rank first (None: not in the pool), its place in the history or -1."""
    if pool is None or not len(pool):
        return [(None, at) for at in _found(history, rows)]
    compiled = kernel.provenance(pool.rows, pool.source_ranks, history, rows)
    if compiled is not None:
        return compiled
    at = (pool.rows == rows[:, None]).argmax(axis=1)  # (k,)
    inside = pool.rows.take(at) == rows
    each = zip(pool.source_ranks.take(at, axis=0).tolist(), inside.tolist(), _found(history, rows), strict=True)
    return [(_order(ranks) if found else None, had) for ranks, found, had in each]


def _order(ranks: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the sources that returned an item, best rank first; of equal ranks the first."""
    return tuple(sorted([s for s, rank in enumerate(ranks) if isfinite(rank)], key=ranks.__getitem__))


def _found(rows: Rows, asked: Rows) -> list[int]:
    """Where each of `asked` is in ascending `rows`, or -1."""
    if not len(rows):
        return [-1] * len(asked)
    at = np.searchsorted(rows, asked)
    found: list[int] = np.where(rows.take(at, mode="clip") == asked, at, -1).tolist()
    return found


def _position(rows: NDArray[np.int32], row: int) -> int:
    """Where `row` is in ascending `rows`, or -1."""
    at = int(np.searchsorted(rows, row))
    return at if at < len(rows) and rows[at] == row else -1


def _name(query: Query, row: int) -> str:
    return _readable(query.catalogue.title(row) or query.catalogue.category_name(row))


def _readable(text: str) -> str:
    """Catalogue text in capitals as a person would write it."""
    return text.capitalize() if text.isupper() else text


def _present(verb: str) -> str:
    """bought -> buy; a verb not in the list stays as it is."""
    return {"bought": "buy", "watched": "watch", "chose": "choose", "read": "read", "played": "play"}.get(verb, verb)
