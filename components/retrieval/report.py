"""What the sources are worth: each one's own and marginal recall, and the pool's, by asking the serving code.

Shapes: S sources, U users with labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from serving.query import Hits, Query, Request
from serving.retrieval.fusion import fuse
from serving.retrieval.source import Source
from serving.system import System

DEPTHS = (100, 1000)
MOST_USERS = 5000  # asked: a recall's error is then some .003


@dataclass(frozen=True)
class JudgedQuery:
    """One user's question and its truth."""

    query: Query
    truth: NDArray[np.int32]  # item rows
    vector: NDArray[np.float32] | None


def questions(system: System, cut: Cut, discover: bool, vectors: NDArray[np.float32] | None, most: int) -> Iterator[JudgedQuery]:
    """A query a user with labels at the cut, of `most` spread evenly over all; when discovering, labels the user has had are left out."""
    users, rows = cut.labels
    if discover:
        had = cut.asked_history
        new = ~np.isin(users * had.shape[1] + rows, had.user * had.shape[1] + had.row)
        users, rows = users[new], rows[new]
    order = np.argsort(users, kind="stable")
    users, rows = users[order], rows[order]
    distinct, begins = np.unique(users, return_index=True)
    ends = np.append(begins[1:], len(users))
    for at in np.linspace(0, len(distinct) - 1, min(most, len(distinct))).astype(int).tolist():
        user = int(distinct[at])
        state = cut.asked[user]
        request = Request(state.user_id, system.answer_size, cut.asked.asked_day(user), discover=discover)
        query = Query(request, state, cut.catalogue, system.learning)
        yield JudgedQuery(query, np.unique(rows[begins[at] : ends[at]]), None if vectors is None else vectors[user])


def measure(system: System, cut: Cut, sources: Sequence[Source], vectors: NDArray[np.float32] | None) -> dict[str, object]:
    """Mean recall over users of every source alone, of the pool, and what the pool loses without each; for all items and for new ones."""
    report: dict[str, object] = {"cut": cut.name}
    for name, discover in (("all", False), ("new", True)):
        found = [_recalls(system, asked, sources) for asked in questions(system, cut, discover, vectors, MOST_USERS)]
        report[name] = _table(system, np.array(found)) if found else None
    return report


def _recalls(system: System, asked: JudgedQuery, sources: Sequence[Source]) -> NDArray[np.float64]:
    """(2 S + 1, depths): of each source, of the pool, of the pool without each."""
    specs = [source.spec for source in sources]
    hits = [source.retrieve(asked.query, system.pool_size, asked.vector) for source in sources]
    none = Hits(np.empty(0, np.int32), np.empty(0, np.float32))
    lists = [hit.rows for hit in hits]
    lists.append(fuse(hits, specs, system.pool_size, asked.query).rows)
    for s in range(len(hits)):
        lists.append(fuse([*hits[:s], none, *hits[s + 1 :]], specs, system.pool_size, asked.query).rows)
    return np.array([[np.isin(asked.truth, rows[:depth]).mean() for depth in DEPTHS] for rows in lists])


def _table(system: System, found: NDArray[np.float64]) -> dict[str, object]:
    means, count = found.mean(axis=0), len(system.sources)
    pool = means[count]
    rows: dict[str, object] = {"users": len(found), "pool": _row(pool)}
    for s, spec in enumerate(system.sources):
        rows[spec.kind] = {"own": _row(means[s]), "marginal": _row(pool - means[count + 1 + s])}
    return rows


def _row(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"recall@{depth}": round(float(value), 4) for depth, value in zip(DEPTHS, values, strict=True)}
