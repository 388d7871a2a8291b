"""What the rankers are told of a request and of each candidate: numpy only, the same code for learning and for answering.

Item features are not here: they live in the catalogue and reach the rankers as precomputed halves. All values are tame (logs, shares,
flags, mostly within [-6, 6]); the rankers standardise them, read NaN as unknown and ignore what never varied while they learnt.
Shapes: C candidates, H history items, E session events, S sources, Fr request features, Fu user features, Fx cross features, K codes.
"""

import numpy as np

from serving.query import Candidates, Floats, Query
from serving.state import TAUS_DAYS
from serving.system import SourceSpec
from serving.taste import NEVER_DAYS, RECENT_TAU, TASTE_FEATURES, History, due, log, write_taste

RANK_OFFSET = 60.0  # of reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009)
RELATIVE = 1000.0  # how many times below a source's best a score is still told from none: products of scores are sums of these logs

REQUEST_FEATURES = (
    "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "place_known", "log_history_items", "log_history_events",
    "log_recent_events", "log_days_since_last", "log_session_events", "log_account_days",
)  # fmt: skip
OWN_FEATURES = (
    *(f"own_decayed_{int(tau)}" for tau in TAUS_DAYS),
    "own_log_count", "own_log_days_since_last", "own_log_mean_gap", "own_due", "own_once", "seen",
)  # fmt: skip
PLAN_FEATURES = ("display_here", "mailer_here")  # elsewhere: item features
SESSION_FEATURES = ("session_item", "session_category_2", "session_brand")
FUSION_FEATURES = ("fused", "fused_relative", "sources")
SESSION_LIFT = np.array([5.0, 1.2, 0.3], np.float32)  # a unit of each of SESSION_FEATURES; a fresh click is log1p(.6) = .47
CROSS_FEATURES = (*OWN_FEATURES, *TASTE_FEATURES, *PLAN_FEATURES, *SESSION_FEATURES, *FUSION_FEATURES)
_SESSION = slice(CROSS_FEATURES.index(SESSION_FEATURES[0]), CROSS_FEATURES.index(SESSION_FEATURES[-1]) + 1)


def request_names(user_features: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the columns of `request_features`, for a system whose user features are these."""
    return (*REQUEST_FEATURES, *user_features)


def cross_names(sources: tuple[SourceSpec, ...]) -> tuple[str, ...]:
    """Names of the columns of `cross_features`, for a system with these sources, in its file's order."""
    kinds = [source.kind for source in sources]
    return (*CROSS_FEATURES, *(f"{part}_{kind}" for part in ("score", "relative", "rank") for kind in kinds))


def request_features(query: Query) -> Floats:
    """What is the same for all candidates: (Fr,). The user's own features come last, and are absent for an unknown user."""
    day, state = query.request.at_day, query.state
    hour, weekday = 2 * np.pi * (day % 1.0), 2 * np.pi * ((day + 3.0) % 7.0) / 7.0  # day 0 was a Thursday; Monday is 0
    last = float(state.last_day.max()) if len(state.last_day) else day - NEVER_DAYS
    account = day - state.created_day if np.isfinite(state.created_day) else 0.0
    context = (
        np.sin(hour), np.cos(hour), np.sin(weekday), np.cos(weekday), float(query.place >= 0),
        np.log1p(len(query.history_rows)), np.log1p(state.counts.sum()), np.log1p(query.decayed[:, RECENT_TAU].sum()),
        np.log1p(max(day - last, 0.0)), np.log1p(len(state.session_keys)), np.log1p(max(account, 0.0)),
    )  # fmt: skip
    return np.concatenate((np.array(context, np.float32), state.features))


def cross_features(query: Query, candidates: Candidates) -> Floats:
    """What depends on both the user and the candidate: (C, Fx), columns as in `cross_names`."""
    sources = candidates.source_scores.shape[1]
    out = np.zeros((len(CROSS_FEATURES) + 3 * sources, len(candidates)), np.float32)  # (Fx, C): whole columns are written
    if len(candidates):
        at = 0
        history = History.of(query)
        for write, names in (
            (_write_own, OWN_FEATURES),
            (write_taste, TASTE_FEATURES),
            (_write_plan, PLAN_FEATURES),
            (_write_session, SESSION_FEATURES),
        ):
            write(out[at : at + len(names)], query, history, candidates)
            at += len(names)
        _write_sources(out[at:], candidates)
    return np.ascontiguousarray(out.T)  # (C, Fx)


def _write_own(out: Floats, query: Query, history: History, candidates: Candidates) -> None:
    """How often, how lately and how regularly the user had this very item; all zero for one never had."""
    seen = np.flatnonzero(candidates.seen)  # (N,) positions of candidates had before
    if not len(seen) or not len(history.rows):
        return
    rows = candidates.rows[seen]
    at = np.minimum(np.searchsorted(history.rows, rows), len(history.rows) - 1)  # (N,)
    known = history.rows[at] == rows
    seen, at = seen[known], at[known]
    count, age = history.counts[at], history.age[at]
    gap = history.span[at] / np.maximum(count - 1, np.float32(1))  # mean days between; 0 when had once
    once = count < 2
    out[: len(TAUS_DAYS), seen] = log(history.decayed[at]).T
    out[len(TAUS_DAYS) :, seen] = (log(count), log(age), log(gap), np.where(once, 0, due(age, gap)), once, np.ones(len(at)))


def _write_plan(out: Floats, query: Query, history: History, candidates: Candidates) -> None:
    """Whether the item is planned on display and in the mailer, at the user's store."""
    catalogue = query.catalogue
    period = catalogue.plan_at(query.request.at_day)
    if period >= 0 and query.place >= 0:
        out[0] = np.asarray(catalogue.plan_display)[period, query.place].take(candidates.rows) != 0
        out[1] = np.asarray(catalogue.plan_mailer)[period, query.place].take(candidates.rows) != 0


def _write_session(out: Floats, query: Query, history: History, candidates: Candidates) -> None:
    """How much of the present session was about this item, its category, its brand."""
    rows, weights = query.session
    if not len(rows):
        return
    catalogue = query.catalogue
    same = candidates.rows[:, None] == rows[None, :]  # (C, E)
    out[0] = np.log1p(same @ weights)
    for line, codes in ((1, np.asarray(catalogue.category)[:, 2]), (2, np.asarray(catalogue.brand))):
        offered = codes[candidates.rows]
        out[line] = np.log1p(((offered[:, None] == codes[rows][None, :]) & (offered[:, None] > 0)) @ weights)


def session_lift(cross: Floats) -> Floats:
    """(C,) log-odds that the present session adds to each candidate: a fresh click makes the item's odds tenfold, its type's 1.8.

    A stated belief: rankers learnt from cuts see no session, its features never vary there, so they ignore them.
    """
    lift: Floats = cross[:, _SESSION] @ SESSION_LIFT
    return lift


def _write_sources(out: Floats, candidates: Candidates) -> None:
    """Fused score, how many sources returned the item; and of each source its score, the log of the score beside its best, its rank."""
    scores, ranks = (np.ascontiguousarray(part.T) for part in (candidates.source_scores, candidates.source_ranks))  # (S, C)
    sources = len(scores)
    out[0] = candidates.fused * RANK_OFFSET
    out[1] = candidates.fused / max(float(candidates.fused.max()), 1e-9)
    out[2] = np.isfinite(ranks).sum(axis=0)
    at = len(FUSION_FEATURES)
    sizes = np.abs(scores)
    out[at : at + sources] = np.copysign(log(sizes), scores)
    best = np.maximum(sizes.max(axis=1, keepdims=True), np.float32(1e-9))
    out[at + sources : at + 2 * sources] = np.copysign(log(sizes * (np.float32(RELATIVE) / best)), scores)
    out[at + 2 * sources :] = np.float32(RANK_OFFSET) / (ranks + np.float32(RANK_OFFSET))  # 0 where the source did not return it
