"""What the rankers are told of a request and of each candidate: numpy only, the same code for learning and for answering.

Item features are not here: they live in the catalogue and reach the rankers as precomputed halves. All values are tame (logs, shares,
flags, mostly within [-6, 6]); the rankers standardise them, read NaN as unknown and ignore what never varied while they learnt.
Shapes: C candidates, E session events, I items, S sources, Fr request features, Fu user features, Fx cross features.
"""

from math import cos, isfinite, log1p, pi, sin

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import AFFINITY_FEATURES, CROSS_FEATURES, FUSION_FEATURES, OWN_FEATURES, PLAN_FEATURES, SESSION_FEATURES
from serving.bundle.arrays import Floats, Rows
from serving.native import kernel
from serving.query import Candidates, Query
from serving.ranking.affinity import AFFINITY_TAU, DUE_LIMIT, NEVER_DAYS, RECENT_TAU, Affinity, log, write_affinity

RANK_OFFSET = 60.0  # of reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009)
RELATIVE = 1000.0  # how many times below a source's best a score is still told from none: products of scores are sums of these logs

Plan = NDArray[np.uint8] | None  # (I,) what is planned for each item; None: nothing for any
OWN, TASTE, PLAN, SESSION = (
    slice(CROSS_FEATURES.index(names[0]), CROSS_FEATURES.index(names[-1]) + 1)
    for names in (OWN_FEATURES, AFFINITY_FEATURES, PLAN_FEATURES, SESSION_FEATURES)
)


def request_features(query: Query) -> Floats:
    """What is the same for all candidates: (Fr,). The user's own features come last, and are absent for an unknown user."""
    day, state = query.request.at_day, query.state
    hour, weekday = 2 * pi * (day % 1.0), 2 * pi * ((day + 3.0) % 7.0) / 7.0  # day 0 was a Thursday; Monday is 0
    last = float(state.last_day.max()) if len(state.last_day) else day - NEVER_DAYS
    account = day - state.created_day if isfinite(state.created_day) else 0.0
    context = (
        sin(hour), cos(hour), sin(weekday), cos(weekday), float(query.place >= 0),
        log1p(len(query.history_rows)), log1p(float(state.counts.sum())), log1p(float(query.history.decayed[RECENT_TAU].sum())),
        log1p(max(day - last, 0.0)), log1p(len(state.session_keys)), log1p(max(account, 0.0)),
    )  # fmt: skip
    return np.concatenate((np.array(context, np.float32), state.features))


def cross_features(query: Query, candidates: Candidates) -> Floats:
    """What depends on both the user and the candidate: (C, Fx), columns as in `cross_names`."""
    width = len(CROSS_FEATURES) + 3 * candidates.source_scores.shape[1]
    if not len(candidates):
        return np.empty((0, width), np.float32)
    plans = _plans(query)
    compiled = _compiled(query, candidates, plans, width) if kernel.native() else None
    if compiled is not None:
        return compiled
    affinity, labels = Affinity.of(query), query.catalogue.labels.take(candidates.rows, axis=0)
    out = np.empty((width, len(candidates)), np.float32)  # whole columns are written
    _write_own(out[OWN], query, affinity, candidates)
    write_affinity(out[TASTE], query, affinity, labels)
    for line, plan in zip(out[PLAN], plans, strict=True):
        if plan is None:
            line[:] = 0
        else:
            np.not_equal(plan.take(candidates.rows), 0, out=line)
    _write_session(out[SESSION], query, candidates.rows, labels)
    _write_sources(out[SESSION.stop :], candidates)
    return np.ascontiguousarray(out.T)  # (C, Fx)


def _compiled(query: Query, pool: Candidates, plans: tuple[Plan, Plan], width: int) -> Floats | None:
    """The same as one loop."""
    catalogue, history = query.catalogue, query.history
    return kernel.features(
        catalogue.labels, len(catalogue.category_names), len(catalogue.brand_names), catalogue.pairs,
        history.rows, history.counts, history.age, history.span, np.ascontiguousarray(history.decayed), *query.session,
        AFFINITY_TAU, RECENT_TAU, NEVER_DAYS, DUE_LIMIT, pool.rows, pool.seen, pool.fused, pool.source_ranks, pool.source_scores, *plans,
        pool.source_scores.shape[1], RELATIVE, RANK_OFFSET, count=len(pool), width=width,
    )  # fmt: skip


def _plans(query: Query) -> tuple[Plan, Plan]:
    """(I,), (I,) what is planned on display and in the mailer, at the user's store; nothing where nothing is planned."""
    catalogue, place = query.catalogue, query.place
    period = catalogue.plan_at(query.request.at_day)
    return (catalogue.plan_display[period, place], catalogue.plan_mailer[period, place]) if period >= 0 and place >= 0 else (None, None)


def _write_own(out: Floats, query: Query, affinity: Affinity, candidates: Candidates) -> None:
    """How often, how lately and how regularly the user had this very item; all zero for one never had."""
    seen, history = candidates.seen.nonzero()[0], query.history_rows  # (N,) positions of candidates had before
    at = np.full(len(candidates), len(history))
    if len(seen) and len(history):
        rows = candidates.rows.take(seen)
        found = np.searchsorted(history, rows)  # (N,)
        at[seen] = np.where(history.take(found, mode="clip") == rows, found, len(history))
    affinity.own.take(at, axis=1, out=out, mode="clip")


def _write_session(out: Floats, query: Query, rows: Rows, labels: NDArray[np.int32]) -> None:
    """How much of the present session was about this item, its category, its brand: logs of the session's weight on each."""
    clicked, weights = query.session
    if not len(clicked):
        out[:] = 0
        return
    catalogue = query.catalogue
    same = rows[:, None] == clicked  # (C, E)
    _, item = np.unique(clicked, return_inverse=True)  # (E,)
    lifts = log(np.bincount(item, weights).take(item).astype(np.float32))
    out[0] = np.where(same.any(axis=1), lifts[same.argmax(axis=1)], 0)
    touched = catalogue.labels.take(clicked, axis=0)  # (E, 6)
    for line, column, size in ((out[1], 2, len(catalogue.category_names)), (out[2], 3, len(catalogue.brand_names))):
        of_session = np.bincount(touched[:, column], weights, minlength=size).astype(np.float32)
        of_session[0] = 0
        line[:] = log(of_session.take(labels[:, column]))


def _write_sources(out: Floats, candidates: Candidates) -> None:
    """Fused score, how many sources returned the item; and of each source its score, the score beside its best (both logs), its rank."""
    scores, ranks = np.ascontiguousarray(candidates.source_scores.T), np.ascontiguousarray(candidates.source_ranks.T)  # (S, C)
    best = max(float(candidates.fused.max()), 1e-9)
    np.multiply(candidates.fused, np.float32(RANK_OFFSET), out=out[0])
    np.divide(candidates.fused, np.float32(best), out=out[1])
    np.add.reduce(np.isfinite(ranks), axis=0, dtype=np.float32, out=out[2])
    sizes = out[len(FUSION_FEATURES) : -len(ranks)].reshape(2, *scores.shape)
    np.abs(scores, out=sizes[0])
    greatest = np.maximum(sizes[0].max(axis=1, keepdims=True), np.float32(1e-9))  # (S, 1)
    np.multiply(sizes[0], np.float32(RELATIVE) / greatest, out=sizes[1])
    sizes += np.float32(1)
    np.log(sizes, out=sizes)
    np.copysign(sizes, scores, out=sizes)
    shares = out[-len(ranks) :]
    np.add(ranks, np.float32(RANK_OFFSET), out=shares)
    np.divide(np.float32(RANK_OFFSET), shares, out=shares)  # 0 where the source did not return it
