"""Why an answer was what it was, and the same answer again: both from the exposure log's record and the bundle it names.

Contributions are exact for the sources that are `Explained` (the parts sum to the score) and by ablation for the rankers (`attribution`).
"""

from dataclasses import replace
from typing import Any

import numpy as np
from msgspec import structs

from serving.bundle.bundle import OtherBundle
from serving.exposures.record import Record
from serving.messages import SESSION
from serving.other_lists import again
from serving.query import Answer, Answered, Candidates, Query, Request
from serving.ranking.attribution import moved
from serving.ranking.feature_parts import feature_parts
from serving.ranking.rankers import UserSide
from serving.ranking.scoring import Scores
from serving.recommender import Recommender, Trace, listed
from serving.retrieval.source import Explained
from serving.rules.rule import Floor
from serving.state.user_state import UserState

_PARTS = 5  # contributions named of each item


def replay(recommender: Recommender, record: Record) -> Answer:
    """The recorded answer, made again on its own rung. Raises `OtherBundle`, naming both."""
    _same_bundle(recommender, record)
    query = recommender.query(record.request, UserState.unpack(record.state))
    if not record.request.personal:
        return again(recommender, query, record.rung, record.degraded)
    if record.rung in ("full", "light"):
        pool, scores = _ranked(recommender, record, query)
        ranked = recommender.scoring.order(pool, scores)
        side = _side(recommender, record, query)
        trace = Trace(query, pool, scores, (), record.rung, record.pool_day, record.side_day, side=side)
    else:
        base = np.frombuffer(record.base, "<i4").astype(np.int32)
        ranked = listed(base, query)
        trace = Trace(query, None, None, (), record.rung, base=base)
    arranged = recommender.arrange(query, ranked)
    return recommender.answer(trace._replace(moves=arranged.moves), arranged, record.degraded)


def explain(recommender: Recommender, record: Record) -> dict[str, Any]:
    """The whole story of one answer, as plain values. The bundle's own parts are left out where another bundle is loaded now."""
    story: dict[str, Any] = {
        "request_id": record.request.request_id,
        **_who(record.request),
        "about": record.request.about or None,
        "at_day": record.request.at_day,
        "bundle": record.bundle,
        "rung": record.rung,
        "degraded": record.degraded,
        "arm": record.arm,
        "took_ms": record.took_ms,
        "candidates": len(record.pool) // 4,
        "pool_age_days": record.request.at_day - record.pool_day if record.pool else None,
        "propensity": _propensity(recommender, record),
    }
    if record.bundle != recommender.bundle.digest:
        moves = [{"rule": move.rule, "what": move.what, "items": len(move.rows), "why": move.why} for move in record.moves]
        note = f"made with another bundle than the loaded {recommender.bundle.digest}: load it to see contributions"
        return story | {"note": note, "rules": moves, "items": [_shown(position, entry) for position, entry in enumerate(record.items)]}
    return story | {"rules": _rules(recommender, record), "items": _items(recommender, record)}


def _who(request: Request) -> dict[str, str | None]:
    """User or session that asked."""
    if request.user_id.startswith(SESSION):
        return {"user_id": None, "session_id": request.user_id.removeprefix(SESSION)}
    return {"user_id": request.user_id or None}


def _same_bundle(recommender: Recommender, record: Record) -> None:
    if record.bundle != recommender.bundle.digest:
        raise OtherBundle(f"the answer was made with bundle {record.bundle}, loaded is {recommender.bundle.digest}: load the former")


def _ranked(recommender: Recommender, record: Record, query: Query) -> tuple[Candidates, Scores]:
    """Pool and scores as they were: the pool of its own moment, scored at the request's."""
    pooled = _moved(query, record.pool_day)
    pool = recommender.retrieve(pooled, recommender.user_side(pooled))
    side = _side(recommender, record, query)
    scores = recommender.scoring.light(query, side, pool)
    return pool, scores if record.rung == "light" else recommender.scoring.heavy(side, pool, scores)


def _side(recommender: Recommender, record: Record, query: Query) -> UserSide:
    """The user's side as it was: of its own moment when it came from the cache."""
    return recommender.user_side(_moved(query, record.side_day))


def _moved(query: Query, day: float) -> Query:
    """The same question at another moment."""
    return replace(query, request=structs.replace(query.request, at_day=day))


def _propensity(recommender: Recommender, record: Record) -> float:
    """How likely this arrangement was under the drawn rules; 1 where nothing is drawn."""
    propensity = 1.0
    met = {move.rule for move in record.moves if move.what == "added"}
    for rule in recommender.system.rules if record.request.personal else ():
        if isinstance(rule, Floor) and rule.chance < 1:
            propensity *= rule.chance if rule.kind in met else 1 - rule.chance
    return propensity


def _rules(recommender: Recommender, record: Record) -> list[dict[str, Any]]:
    catalogue = recommender.catalogue
    return [
        {
            "rule": move.rule,
            "what": move.what,
            "items": [catalogue.item_id(row) for row in move.rows[:20]],
            "count": len(move.rows),
            "why": move.why,
        }
        for move in record.moves
    ]


def _shown(position: int, entry: Answered) -> dict[str, Any]:
    return {"position": position, "item_id": entry.item_id, "score": entry.score, "sources": list(entry.sources), "reason": entry.reason}


def _items(recommender: Recommender, record: Record) -> list[dict[str, Any]]:
    query = recommender.query(record.request, UserState.unpack(record.state))
    catalogue, pool, groups, features = recommender.catalogue, None, {}, {}
    if record.request.personal and record.rung in ("full", "light"):
        pool, scores = _ranked(recommender, record, query)
        side, rows = _side(recommender, record, query), np.array([entry.row for entry in record.items], np.int32)
        groups = moved(recommender.scoring, query, side, pool, scores, rows, item=True)
        asked = _moved(query, record.side_day)
        named = recommender.bundle.user_features
        features = feature_parts(recommender.scoring, asked, recommender.side_of(asked), named, pool, scores, rows)
    told = []
    for position, entry in enumerate(record.items):
        explained = recommender.explained if record.request.personal else ()
        said = {source.spec.kind: _contributions(source, query, entry.row) for source in explained}
        told.append(
            _shown(position, entry)
            | {
                "title": catalogue.title(entry.row),
                "retrieved": _retrieved(recommender, pool, entry.row),
                "contributions": said,
                "ranker": groups.get(entry.row, {}),
                "features": features.get(entry.row, []),
                "rules": sorted({move.rule for move in record.moves if entry.row in move.rows}),
            }
        )
        told[-1]["nearest"] = next((parts[0] for parts in said.values() if parts), None)
    return told


def _retrieved(recommender: Recommender, pool: Candidates | None, row: int) -> list[dict[str, Any]]:
    """Every source that returned the item, best rank first; none for one that filled up the list."""
    at = int(np.flatnonzero(pool.rows == row)[0]) if pool is not None and (pool.rows == row).any() else -1
    if pool is None or at < 0:
        return []
    found = [
        {"source": source.spec.kind, "rank": int(rank), "score": float(score)}
        for source, rank, score in zip(recommender.sources, pool.source_ranks[at], pool.source_scores[at], strict=True)
        if np.isfinite(rank)
    ]
    return sorted(found, key=lambda entry: entry["rank"])


def _contributions(source: Explained, query: Query, row: int) -> list[dict[str, Any]]:
    """The user's items that say most for this one by a source, with their exact parts of its score."""
    rows, parts = source.contributions(query, row)
    catalogue = query.catalogue
    pairs = zip(rows[:_PARTS].tolist(), parts[:_PARTS].tolist(), strict=True)
    return [{"item_id": catalogue.item_id(other), "title": catalogue.title(other), "part": part} for other, part in pairs]
