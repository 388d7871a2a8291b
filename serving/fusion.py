"""From several lists to one pool: every source is given its share, the best of the fused ranks fill the rest.

Reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009): fused = sum_s weight_s / (offset_s + rank_s), ranks from 0, nothing where a source
did not return the item. A small offset makes a source count by its first places.
Shapes: S sources, C candidates, M distinct items returned by any source.
"""

from collections.abc import Sequence

import numpy as np

from serving.index import descending
from serving.query import Candidates, Floats, Hits, Query
from serving.sources import Source
from serving.system import SourceSpec

RANK_OFFSET = 60.0  # of the paper; a source may set its own


def retrieve(query: Query, sources: Sequence[Source], pool: int, vector: Floats | None = None) -> Candidates:
    """Ask every source for `pool` items and fuse: at most `pool` candidates, best fused rank first.

    `vector` (D,) is the user tower's output; without it the two-tower source stays silent.
    """
    hits = [source.retrieve(query, pool, vector) for source in sources]
    return fuse(hits, [source.spec for source in sources], pool, query)


def fuse(hits: Sequence[Hits], specs: Sequence[SourceSpec], pool: int, query: Query) -> Candidates:
    """One pool from the lists of the sources, in the order of `specs`. The first `share * pool` of each list are always in it."""
    rows, at = np.unique(np.concatenate([hit.rows for hit in hits]), return_inverse=True)  # (M,), (listed,)
    ends = np.cumsum([len(hit.rows) for hit in hits]).tolist()
    steps = np.concatenate([np.arange(len(hit.rows), dtype=np.float32) for hit in hits])  # (listed,)
    parts, promised = np.empty_like(steps), np.zeros(len(rows), bool)
    ranks = np.full((len(specs), len(rows)), np.inf, np.float32)  # (S, M)
    scores = np.empty_like(ranks)
    for s, (hit, spec) in enumerate(zip(hits, specs, strict=True)):
        listed = slice(ends[s] - len(hit.rows), ends[s])
        own = at[listed]
        ranks[s, own] = steps[listed]
        np.divide(weight(spec, query.request.discover), steps[listed] + float(spec.settings.get("offset", RANK_OFFSET)), out=parts[listed])
        promised[own[: int(spec.share * pool)]] = True
        scores[s] = _scores(hit, rows, own)
    fused = np.bincount(at, parts, minlength=len(rows)).astype(np.float32)
    kept = _fill(fused, promised, pool)
    had = np.append(query.history_rows, np.int32(-1))  # never empty
    seen = had[np.searchsorted(had[:-1], rows[kept])] == rows[kept]
    return Candidates(
        rows[kept], np.ascontiguousarray(scores[:, kept].T), np.ascontiguousarray(ranks[:, kept].T), fused[kept], seen
    )  # fmt: skip


def weight(spec: SourceSpec, discover: bool) -> float:
    """A source's weight in the fused rank; where only new items are asked for, its `discover_weight` if it has one."""
    usual = spec.settings.get("weight", 1.0)
    return float(spec.settings.get("discover_weight", usual) if discover else usual)


def _scores(hit: Hits, rows: np.ndarray, own: np.ndarray) -> Floats:
    """(M,) the source's score of every row: from `dense` where it has one, else only of what it returned."""
    scores = np.zeros(len(rows), np.float32)
    if hit.dense is None:
        scores[own] = hit.scores
    elif len(rows) and rows[-1] < len(hit.dense):
        scores = hit.dense[rows]
    else:  # items posted after the source was fitted have no score in it
        known = rows < len(hit.dense)
        scores[known] = hit.dense[rows[known]]
    return scores


def _fill(fused: Floats, promised: np.ndarray, pool: int) -> np.ndarray:
    """Positions of the pool, best fused first: all promised ones, then the best of the others."""
    order = descending(fused)
    if len(order) <= pool:
        return order
    first = promised[order]
    room = pool - int(first.sum())
    return order[first | ((np.cumsum(~first) <= room) & ~first)]
