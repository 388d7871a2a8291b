"""From several lists to one pool: every source is given its share, the best of the fused ranks fill the rest.

Reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009): fused = sum_s weight_s / (offset_s + rank_s), ranks from 0, nothing where a source
did not return the item. A small offset makes a source count by its first places.
Shapes: S sources, L items listed by all of them, C candidates, H history items.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Rows
from serving.native import kernel
from serving.query import Candidates, Hits, Query
from serving.retrieval.source import Source
from serving.retrieval.top_k import descending
from serving.system import SourceSpec

Barred = tuple[NDArray[np.uint8] | None, int]  # (I,) flags of each item, and those of them that keep an item out
RANK_OFFSET = 60.0  # of the paper; a source may set its own


def retrieve(query: Query, sources: Sequence[Source], pool: int, vector: Floats | None = None, barred: Barred = (None, 0)) -> Candidates:
    """Ask every source for `pool` items and fuse: at most `pool` candidates, best fused rank first.

    `vector` (D,) is the user tower's output; without it the two-tower source stays silent.
    """
    hits = [source.retrieve(query, pool, vector) for source in sources]
    return fuse(hits, [source.spec for source in sources], pool, query, barred)


def fuse(hits: Sequence[Hits], specs: Sequence[SourceSpec], pool: int, query: Query, barred: Barred = (None, 0)) -> Candidates:
    """One pool from the lists of the sources, in the order of `specs`. The first `share * pool` of each list are in it, if not barred.

    Equal fused scores stay in the order in which the lists name their items first.
    """
    discover = query.request.discover
    terms = [(weight(spec, discover), float(spec.settings.get("offset", RANK_OFFSET)), int(spec.share * pool)) for spec in specs]
    compiled = None
    if kernel.native():
        sources = tuple((hit.rows, hit.scores, hit.values, hit.position_of, *term) for hit, term in zip(hits, terms, strict=True))
        compiled = kernel.fuse(sources, query.history_rows, len(query.catalogue), pool, *barred)
    if compiled is not None:
        rows, fused, ranks, scores, seen = compiled
        return Candidates(rows, scores, ranks, fused, seen)
    return _fuse(hits, terms, query.history_rows, len(query.catalogue), pool, *barred)


def weight(spec: SourceSpec, discover: bool) -> float:
    """A source's weight in the fused rank; where only new items are asked for, its `discover_weight` if it has one."""
    usual = spec.settings.get("weight", 1.0)
    return float(spec.settings.get("discover_weight", usual) if discover else usual)


def _fuse(
    hits: Sequence[Hits], terms: Sequence[tuple[float, float, int]], history: Rows, items: int, pool: int,
    flags: NDArray[np.uint8] | None, barring: int,
) -> Candidates:  # fmt: skip
    """The same in numpy. `terms`: each list's weight, offset and promised places."""
    ends = [*accumulate(len(hit.rows) for hit in hits)]
    parts = [slice(end - len(hit.rows), end) for end, hit in zip(ends, hits, strict=True)]
    longest = max(pool, *(len(hit.rows) for hit in hits))  # mostly the pool's size: few are made
    shares = [_shares(worth, offset, longest)[: len(hit.rows)] for hit, (worth, offset, _) in zip(hits, terms, strict=True)]
    listed = np.concatenate([hit.rows for hit in hits], dtype=np.intp)  # (L,)
    steps = np.arange(len(listed), dtype=np.int32)
    slots = np.empty(items, np.int32)  # place of an item; what is not written is not read
    slots[listed[::-1]] = steps[::-1]
    at = slots.take(listed)  # (L,) first place of the item of each
    fused = np.bincount(at, np.concatenate(shares), minlength=len(listed)).astype(np.float32)
    promised = np.zeros(len(listed), np.bool_)
    for part, (_, _, places) in zip(parts, terms, strict=True):
        promised[at[part][:places]] = True
    chosen = _fill(fused, at == steps, promised, pool)
    if flags is not None:
        chosen = chosen.compress(flags.take(listed.take(chosen)) & np.uint8(barring) == 0)
    rows = listed.take(chosen).astype(np.int32)
    ranks, scores = np.full((len(listed), len(hits)), np.inf, np.float32), np.empty((len(rows), len(hits)), np.float32)
    for s, (hit, part) in enumerate(zip(hits, parts, strict=True)):
        ranks[at[part], s] = _places(longest)[: len(hit.rows)]
        if hit.values is None:
            own = np.zeros(len(listed), np.float32)
            own[at[part]] = hit.scores
            scores[:, s] = own.take(chosen)
        else:
            scores[:, s] = hit.scores_of(rows)
    slots[history] = np.arange(len(history), dtype=np.int32)  # what is left of the others is no place of theirs in the history
    seen = history.take(slots.take(rows), mode="clip") == rows if len(history) else np.zeros(len(rows), np.bool_)
    return Candidates(rows, scores, ranks.take(chosen, axis=0), fused.take(chosen), seen)


@lru_cache(maxsize=64)
def _shares(worth: float, offset: float, size: int) -> NDArray[np.float64]:
    """(size,) what each place of a list adds, rounded to float32."""
    return (np.float32(worth) / (_places(size) + np.float32(offset))).astype(np.float64)


@lru_cache(maxsize=8)
def _places(size: int) -> Floats:
    """(size,) 0, 1, 2, ..."""
    return np.arange(size, dtype=np.float32)


def _fill(fused: Floats, first: NDArray[np.bool_], promised: NDArray[np.bool_], pool: int) -> NDArray[np.integer]:
    """Places of the pool, best fused first: all promised ones, then the best of the others. Only places that are `first` are items."""
    near, room = first, pool - int(np.count_nonzero(promised))
    if np.count_nonzero(first) > pool:
        near = promised
        if room > 0:
            others = np.where(first & ~promised, fused, -np.inf)
            near = near | (others >= np.partition(others, len(others) - room)[len(others) - room])
    found = near.nonzero()[0]
    order = found.take(descending(fused.take(found)))
    if len(order) <= max(pool, pool - room):
        return order
    kept = promised.take(order)  # more others than there is room for are equal
    return order[kept | (np.cumsum(~kept) <= room)]
