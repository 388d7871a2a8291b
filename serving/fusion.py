"""From several lists to one pool: every source is given its share, the best of the fused ranks fill the rest.

Reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009): fused = sum_s weight_s / (offset_s + rank_s), ranks from 0, nothing where a source
did not return the item. A small offset makes a source count by its first places.
Shapes: S sources, L items listed by all of them, C candidates, H history items.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving import kernel
from serving.index import descending
from serving.query import Candidates, Floats, Hits, Query, Rows
from serving.sources import Source
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
    sources = tuple((hit.rows, hit.scores, hit.values, hit.position_of, *term) for hit, term in zip(hits, terms, strict=True))
    compiled = kernel.fuse(sources, query.history_rows, len(query.catalogue), pool, *barred)
    if compiled is not None:
        rows, fused, ranks, scores, seen = compiled
        return Candidates(rows, scores, ranks, fused, seen)
    rows, fused, ranks, seen = _fuse([hit.rows for hit in hits], terms, query.history_rows, len(query.catalogue), pool)
    scores = np.stack([_read(hit, rows, ranks[:, s]) for s, hit in enumerate(hits)], axis=1)
    found, flags = Candidates(rows, scores, ranks, fused, seen), barred[0]
    return found if flags is None else found.take(flags.take(rows) & np.uint8(barred[1]) == 0)


def weight(spec: SourceSpec, discover: bool) -> float:
    """A source's weight in the fused rank; where only new items are asked for, its `discover_weight` if it has one."""
    usual = spec.settings.get("weight", 1.0)
    return float(spec.settings.get("discover_weight", usual) if discover else usual)


def _read(hit: Hits, rows: Rows, ranks: Floats) -> Floats:
    """(C,) a source's score of every candidate; 0 where it gives none."""
    if hit.values is not None:
        return hit.scores_of(rows)
    held = np.flatnonzero(np.isfinite(ranks))
    found = np.zeros(len(ranks), np.float32)
    found[held] = hit.scores[ranks[held].astype(np.intp)]
    return found


def _fuse(
    lists: Sequence[Rows], terms: Sequence[tuple[float, float, int]], history: Rows, items: int, pool: int
) -> tuple[Rows, Floats, Floats, NDArray[np.bool_]]:  # fmt: skip
    """Rows (C,), fused (C,), ranks (C, S) and seen (C,) of the pool. `terms`: each list's weight, offset and promised places."""
    listed, ends = np.concatenate(lists), np.cumsum([len(rows) for rows in lists])  # (L,), (S,)
    steps = np.arange(len(listed), dtype=np.int32)
    slots = np.empty(items, np.int32)  # position of an item; what is not written is not read
    slots[listed[::-1]] = steps[::-1]  # the first place of each
    first = np.flatnonzero(slots.take(listed) == steps)
    rows = listed.take(first)
    slots[rows] = steps[: len(rows)]
    at = slots.take(listed)
    ranks = np.full((len(ends), len(rows)), np.inf, np.float32)  # (S, M)
    parts, kept = np.empty(len(listed), np.float32), np.zeros(len(rows), bool)
    for s, (end, (worth, offset, promised)) in enumerate(zip(ends.tolist(), terms, strict=True)):
        begin = end - len(lists[s])
        own, places = at[begin:end], steps[: end - begin].astype(np.float32)
        np.divide(np.float32(worth), places + np.float32(offset), out=parts[begin:end])
        ranks[s][own] = places
        kept[own[:promised]] = True
    fused = np.bincount(at, parts, minlength=len(rows)).astype(np.float32)
    chosen = _fill(fused, kept, pool)
    rows, had = rows.take(chosen), np.append(history, np.int32(-1))  # never empty
    seen = had.take(np.searchsorted(history, rows)) == rows
    return rows, fused.take(chosen), np.ascontiguousarray(ranks.take(chosen, axis=1).T), seen


def _fill(fused: Floats, promised: NDArray[np.bool_], pool: int) -> Rows:
    """Positions of the pool, best fused first: all promised ones, then the best of the others."""
    order = descending(fused)
    if len(order) <= pool:
        return order
    first = promised[order]
    room = pool - int(first.sum())
    return order[first | ((np.cumsum(~first) <= room) & ~first)]
