"""What the rankers are told of a request and of each candidate: numpy only, the same code for learning and for answering.

Item features are not here: they live in the catalogue and reach the rankers as precomputed halves. All values are tame (logs, shares,
flags, mostly within [-6, 6]); the rankers standardise them, read NaN as unknown and ignore what never varied while they learnt.
Shapes: C candidates, E session events, I items, S sources, Fr request features, Fu user features, Fx cross features.
"""

from collections.abc import Callable
from math import cos, isfinite, log1p, pi, sin

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import CROSS_FEATURES, OWN_FEATURES, SESSION_FEATURES
from serving.bundle.arrays import Floats, Rows
from serving.native import kernel
from serving.query import Candidates, Query
from serving.ranking.affinity import AFFINITY_TAU, DUE_LIMIT, NEVER_DAYS, RECENT_TAU, Affinity, affinity_features, log
from serving.retrieval.fusion import RANK_OFFSET

RELATIVE = 1000.0  # how many times below a source's best a score is still told from none: products of scores are sums of these logs

CrossFeature = Callable[[Query, Candidates], Floats]  # (C,); it reads of the query the request, history, session and catalogue: a server of
# ranking alone is told no more
Plan = NDArray[np.uint8] | None  # (I,) what is planned for each item; None: nothing for any
SESSION = slice(CROSS_FEATURES.index(SESSION_FEATURES[0]), CROSS_FEATURES.index(SESSION_FEATURES[-1]) + 1)
_TOLD = kernel.Told(AFFINITY_TAU, RECENT_TAU, NEVER_DAYS, DUE_LIMIT, RELATIVE, RANK_OFFSET)


def request_features(query: Query) -> Floats:
    """What is the same for all candidates: (Fr,). The user's own features come last, and are absent for an unknown user."""
    day, state = query.request.at_day, query.state
    hour, weekday = 2 * pi * (day % 1.0), 2 * pi * ((day + 3.0) % 7.0) / 7.0  # day 0 was a Thursday; Monday is 0
    last = float(state.last_day.max()) if len(state.last_day) else day - NEVER_DAYS
    account = day - state.created_day if isfinite(state.created_day) else 0.0
    context = (
        sin(hour), cos(hour), sin(weekday), cos(weekday), float(query.place >= 0),
        log1p(len(query.history_rows)), log1p(max(float(state.counts.sum()), 0.0)), log1p(float(query.history.decayed[RECENT_TAU].sum())),
        log1p(max(day - last, 0.0)), log1p(len(state.session_keys)), log1p(max(account, 0.0)),
    )  # fmt: skip
    return np.concatenate((np.array(context, np.float32), state.features))


def cross_features(query: Query, candidates: Candidates) -> Floats:
    """What depends on both the user and the candidate: (C, Fx), columns as in `cross_names`.

    A system's own come last, a column a function of query and candidates. Raises `ValueError` naming one that gives another shape.
    """
    common = _common_features(query, candidates)
    own = [_own_column(path, function, query, candidates) for path, function in query.learning.own_cross.items()]
    return np.column_stack((common, *own)) if own else common


def _own_column(path: str, function: CrossFeature, query: Query, candidates: Candidates) -> Floats:
    """(C,) what a system's own function tells of each candidate; 0 where that is no finite number: nothing is known."""
    column = np.asarray(function(query, candidates), np.float32)
    if column.shape != (len(candidates),):
        raise ValueError(f"cross feature {path!r} gave shape {column.shape} for {len(candidates)} candidates: give one number for each")
    return np.where(np.isfinite(column), column, np.float32(0))


def _common_features(query: Query, candidates: Candidates) -> Floats:
    """(C, Fx less a system's own) those of every system."""
    width = len(CROSS_FEATURES) + 3 * candidates.source_scores.shape[1]
    if not len(candidates):
        return np.empty((0, width), np.float32)
    plans = _plans(query)
    compiled = kernel.features(query.catalogue, query.history, query.session, candidates, plans, _TOLD)
    if compiled is not None:
        return compiled
    affinity, labels = Affinity.of(query), query.catalogue.labels[candidates.rows]
    planned = [np.zeros(len(candidates)) if plan is None else plan[candidates.rows] != 0 for plan in plans]
    parts = (
        _own_features(query, affinity, candidates), affinity_features(query, affinity, labels), np.column_stack(planned),
        _session_features(query, candidates.rows, labels), _source_features(candidates),
    )  # fmt: skip
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _plans(query: Query) -> tuple[Plan, Plan]:
    """(I,), (I,) what is planned on display and in the mailer, at the user's store; nothing where nothing is planned."""
    catalogue, place = query.catalogue, query.place
    period = catalogue.plan_at(query.request.at_day)
    return (catalogue.plan_display[period, place], catalogue.plan_mailer[period, place]) if period >= 0 and place >= 0 else (None, None)


def _own_features(query: Query, affinity: Affinity, candidates: Candidates) -> Floats:
    """(C, 10): how often, how lately and how regularly the user had this very item; all zero for one never had."""
    history, out = query.history_rows, np.zeros((len(candidates), len(OWN_FEATURES)), np.float32)
    had = np.flatnonzero(candidates.seen & np.isin(candidates.rows, history))
    out[had] = affinity.own[np.searchsorted(history, candidates.rows[had])]
    return out


def _session_features(query: Query, rows: Rows, labels: NDArray[np.int32]) -> Floats:
    """(C, 3): how much of the present session was about this item, its type, its brand: logs of the session's weight on each."""
    clicked, weights = query.session
    catalogue, out = query.catalogue, np.zeros((len(rows), len(SESSION_FEATURES)), np.float32)
    if not len(clicked):
        return out
    of_clicked = catalogue.labels[clicked]  # (E, 6)
    for feature, (on, at, size) in enumerate(
        (
            (clicked, rows, len(catalogue)),
            (of_clicked[:, 2], labels[:, 2], len(catalogue.category_names)),
            (of_clicked[:, 3], labels[:, 3], len(catalogue.brand_names)),
        )
    ):
        of_session = np.bincount(on, weights, size).astype(np.float32)
        if feature:
            of_session[0] = 0  # unknown
        out[:, feature] = log(of_session)[at]
    return out


def _source_features(candidates: Candidates) -> Floats:
    """(C, 3 + 3 S): fused score, how many sources returned the item; of each source its score, score beside its best, rank."""
    scores, ranks, fused = candidates.source_scores, candidates.source_ranks, candidates.fused
    sizes = np.abs(scores)  # (C, S)
    relative = np.float32(RELATIVE) / np.maximum(sizes.max(axis=0), np.float32(1e-9))  # (S,)
    whole = np.column_stack((fused * np.float32(RANK_OFFSET), fused / max(fused.max(), np.float32(1e-9)), np.isfinite(ranks).sum(axis=1)))
    offset = np.float32(RANK_OFFSET)  # a rank of infinity, where the source did not return the item, gives 0
    return np.concatenate(
        (whole, np.copysign(log(sizes), scores), np.copysign(log(sizes * relative), scores), offset / (ranks + offset)), axis=1
    )
