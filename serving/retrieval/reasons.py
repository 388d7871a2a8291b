"""Why an item is in the list: one plain sentence a user may read, of what moved it most.

What moved an item is told in parts: what each group of features added to its score (`serving/ranking/attribution.py`), and of the
sources each one's share of its fused rank. The words are the sources' own (`Source.reason`) and those of `serving/retrieval/sentences.py`.
Shapes: k answer length, C candidates, S sources.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np

from serving.bundle.arrays import Floats, Rows
from serving.bundle.fallback import Fallback
from serving.native import kernel
from serving.query import Candidates, Query
from serving.retrieval.fusion import share
from serving.retrieval.sentences import like_usual, looked, of_history, planned
from serving.retrieval.source import Explained, Source

HAD, TASTE, PROMOTION, SESSION, SOURCES = PARTS = ("had before", "taste", "promotion", "session", "sources")
FILLED_UP, BATCH, CACHED = "popular", "batch", "cached"  # where an item came from that no source returned
POPULAR, EARLIER = "Popular right now", "Picked for you earlier"
Parts = Mapping[str, float]  # of `PARTS` -> what it added to the item's score, against the others'
Told = tuple[tuple[str, ...], str]  # sources, best rank first; the sentence


class Origin(NamedTuple):
    """Where a list came from that the rankers did not order: what its items are said to come from, and its rows."""

    name: str
    rows: Rows


class Reasons:
    """Sentences in the words of one system (its verb stands in the query)."""

    def __init__(self, sources: Sequence[Source], fallback: Fallback) -> None:
        self.kinds = tuple(source.spec.kind for source in sources)
        self._sources, self._fallback = tuple(sources), fallback

    def tell(
        self, query: Query, pool: Candidates | None, rows: Rows, parts: Mapping[int, Parts] | None = None, origin: Origin | None = None
    ) -> list[Told]:
        """Sources and sentence of each row, in order: (k,). `parts`: of a row what moved it, where that is known.

        A row in neither the pool nor the `origin` was filled up from a popular list.
        """
        of_origin = frozenset(origin.rows.tolist()) if origin is not None else frozenset()
        told, moved = [], parts or {}
        for row, (order, at, had) in zip(rows.tolist(), known(pool, query.history_rows, rows), strict=True):
            names = tuple([self.kinds[s] for s in order]) if order else ()
            if not order:
                names = (BATCH,) if order == () else (origin.name,) if origin is not None and row in of_origin else (FILLED_UP,)
            ranks = pool.source_ranks[at] if pool is not None and at >= 0 else None
            told.append((names, next(filter(None, self._ways(query, row, order or (), names, moved.get(row, {}), had, ranks)), POPULAR)))
        return told

    def sentence(self, query: Query, row: int, order: Sequence[int], names: Sequence[str], parts: Parts | None = None) -> str:
        """What a user may read. `order`: the sources that returned it, best rank first; without any `names` says where it is from."""
        return next(filter(None, self._ways(query, row, order, names, parts or {}, query.history.position_of(row))), POPULAR)

    def _ways(
        self, query: Query, row: int, order: Sequence[int], names: Sequence[str], parts: Parts, had: int, ranks: Floats | None = None
    ) -> Iterator[str]:
        """What may be said of an item, of what moved it most first; of one had before that it was had, unless something else moved it.

        `had`: its place in the history, or -1; `ranks` (S,): its ranks in the sources' lists.
        """
        own = of_history(query, had)
        for part in sorted((part for part, added in parts.items() if added > 0), key=parts.__getitem__, reverse=True) if parts else ():
            if part == SESSION:
                yield looked(query, row)
            elif part == PROMOTION:
                yield planned(query, row)
            elif own:
                yield own
            elif part == TASTE:
                yield like_usual(query, row)
            elif part == SOURCES:
                yield from self._by_source(query, row, order, ranks)
        yield own
        yield from self._by_source(query, row, order, ranks)
        if not order and names[0] in (BATCH, CACHED, *self.kinds):  # what follows is known of the user, whichever list the item is from
            yield from (source.reason(query, row) for source in self._sources if isinstance(source, Explained))
            yield EARLIER
        yield self._popular(query, row)

    def _by_source(self, query: Query, row: int, order: Sequence[int], ranks: Floats | None) -> Iterator[str]:
        """What the sources that returned an item say of it, the one that gave it most of its fused rank first."""
        if ranks is not None and len(order) > 1:
            of, discover = ranks.tolist(), query.request.discover
            order = sorted(order, key=lambda s: (-share(self._sources[s].spec, discover, of[s]), of[s]))
        yield from (self._sources[s].reason(query, row) for s in order)

    def _popular(self, query: Query, row: int) -> str:
        """Whose popular list an item is on, if on any."""
        if (self._fallback.popular(query.request.region or query.state.region) == row).any():
            return "Popular near you"
        return POPULAR if (self._fallback.static() == row).any() else "From the whole range"


def known(pool: Candidates | None, history: Rows, rows: Rows) -> list[tuple[tuple[int, ...] | None, int, int]]:
    """Of each row (k,): the sources that returned it, best rank first (None: not in the pool); its places in pool and history, or -1."""
    if pool is None or not len(pool):
        return [(None, -1, at) for at in _found(history, rows)]
    compiled = kernel.provenance(pool.rows, pool.source_ranks, history, rows)
    if compiled is not None:
        return compiled
    at = (pool.rows == rows[:, None]).argmax(axis=1)  # (k,)
    at = np.where(pool.rows[at] == rows, at, -1)
    each = zip(pool.source_ranks[at].tolist(), at.tolist(), _found(history, rows), strict=True)
    return [(_order(ranks) if place >= 0 else None, place, had) for ranks, place, had in each]


def _order(ranks: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the sources that returned an item, best rank first; of equal ranks the first."""
    return tuple(sorted([s for s, rank in enumerate(ranks) if isfinite(rank)], key=ranks.__getitem__))


def _found(rows: Rows, asked: Rows) -> list[int]:
    """Where each of `asked` is in ascending `rows`, or -1."""
    if not len(rows):
        return [-1] * len(asked)
    at = np.searchsorted(rows, asked)
    found: list[int] = np.where(rows[np.minimum(at, len(rows) - 1)] == asked, at, -1).tolist()
    return found
