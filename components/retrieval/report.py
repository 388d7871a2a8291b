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


@dataclass(frozen=True)
class JudgedQuery:
    """One user's question and its truth."""

    query: Query
    truth: NDArray[np.int32]  # item rows
    vector: NDArray[np.float32] | None


def questions(system: System, cut: Cut, discover: bool, vectors: NDArray[np.float32] | None) -> Iterator[JudgedQuery]:
    """A query a user with labels at the cut; when discovering, labels the user has had are left out."""
    users, rows = cut.labels
    order = np.argsort(users, kind="stable")
    users, rows = users[order], rows[order]
    for user, begin, end in zip(*_runs(users), strict=True):
        state = cut.asked[int(user)]
        request = Request(state.user_id, system.answer_size, cut.asked.asked_day(int(user)), discover=discover)
        query = Query(request, state, cut.catalogue, system.learning)
        truth = rows[begin:end]
        if discover:
            truth = np.setdiff1d(truth, query.history_rows)
        if len(truth):
            yield JudgedQuery(query, truth, None if vectors is None else vectors[user])


def measure(system: System, cut: Cut, sources: Sequence[Source], vectors: NDArray[np.float32] | None) -> dict[str, object]:
    """Mean recall over users of every source alone, of the pool, and what the pool loses without each; for all items and for new ones."""
    report: dict[str, object] = {"cut": cut.name}
    for name, discover in (("all", False), ("new", True)):
        found = [_recalls(system, asked, sources) for asked in questions(system, cut, discover, vectors)]
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


def _runs(values: NDArray[np.int64]) -> tuple[list[int], list[int], list[int]]:
    """Value, begin and end of every run of equal values in a sorted array."""
    distinct, begins = np.unique(values, return_index=True)
    return distinct.tolist(), begins.tolist(), [*begins[1:].tolist(), len(values)]
