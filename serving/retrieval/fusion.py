"""From several lists to one pool: every source is given its share, the best of the fused ranks fill the rest.

Reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009): fused = sum_s weight_s / (offset_s + rank_s), ranks from 0, nothing where a source
did not return the item. A small offset makes a source count by its first places.
Shapes: S sources, L items listed by all of them, C candidates, H history items.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Rows
from serving.native import kernel
from serving.query import Candidates, Hits, Query
from serving.retrieval.source import Source
from serving.system import SourceSpec

Barred = tuple[NDArray[np.uint8] | None, int]  # (I,) flags of each item, and those of them that keep an item out
RANK_OFFSET = 60.0  # of reciprocal-rank fusion in the paper; a source may set its own


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
    terms = [(weight(spec, discover), _offset(spec), int(spec.share * pool)) for spec in specs]
    compiled = kernel.fuse(hits, terms, query.history_rows, len(query.catalogue), pool, *barred)
    if compiled is not None:
        rows, fused, ranks, scores, seen = compiled
        return Candidates(rows, scores, ranks, fused, seen)
    return _fuse(hits, terms, query.history_rows, pool, *barred)


def weight(spec: SourceSpec, discover: bool) -> float:
    """A source's weight in the fused rank; where only new items are asked for, its `discover_weight` if it has one."""
    usual = spec.settings.get("weight", 1.0)
    return float(spec.settings.get("discover_weight", usual) if discover else usual)


def share(spec: SourceSpec, discover: bool, rank: float) -> float:
    """What a source adds to the fused rank of an item that stands at a 0-based rank of its list; 0 for an infinite one."""
    return weight(spec, discover) / (_offset(spec) + rank)


def _offset(spec: SourceSpec) -> float:
    return float(spec.settings.get("offset", RANK_OFFSET))


def _fuse(
    hits: Sequence[Hits], terms: Sequence[tuple[float, float, int]], history: Rows, pool: int, flags: NDArray[np.uint8] | None, barring: int
) -> Candidates:
    """The same in numpy. `terms`: each list's weight, offset and promised places."""
    listed = np.concatenate([hit.rows for hit in hits])  # (L,)
    distinct, first, at = np.unique(listed, return_index=True, return_inverse=True)  # (D,), (D,), (L,)
    ends = [*accumulate(len(hit.rows) for hit in hits)]
    places = [at[end - len(hit.rows) : end] for end, hit in zip(ends, hits, strict=True)]  # of each list's items in `distinct`
    terms_of = [np.float32(worth) / (_ranks(hit) + np.float32(offset)) for hit, (worth, offset, _) in zip(hits, terms, strict=True)]
    fused = np.bincount(at, np.concatenate(terms_of), minlength=len(distinct)).astype(np.float32)
    promised = np.zeros(len(distinct), np.bool_)
    for of_list, (_, _, count) in zip(places, terms, strict=True):
        promised[of_list[:count]] = True
    order = np.lexsort((first, -fused))
    others = ~promised[order]
    room = max(pool - int(np.count_nonzero(promised)), 0)
    chosen = order[~others | (np.cumsum(others) <= room)]
    if flags is not None:
        chosen = chosen[flags[distinct[chosen]] & barring == 0]
    rows = distinct[chosen].astype(np.int32)
    ranks = np.full((len(distinct), len(hits)), np.inf, np.float32)
    for s, (hit, of_list) in enumerate(zip(hits, places, strict=True)):
        ranks[of_list, s] = _ranks(hit)
    scores = np.stack([hit.scores_of(rows) for hit in hits], axis=1)  # (C, S)
    return Candidates(rows, scores, ranks[chosen], fused[chosen], np.isin(rows, history))


def _ranks(hit: Hits) -> Floats:
    """(n,) 0, 1, 2, ..."""
    return np.arange(len(hit.rows), dtype=np.float32)
