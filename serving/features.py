"""What the rankers are told of a request and of each candidate: numpy only, the same code for learning and for answering.

Item features are not here: they live in the catalogue and reach the rankers as precomputed halves. All values are tame (logs, shares,
flags, mostly within [-6, 6]); the rankers standardise them, read NaN as unknown and ignore what never varied while they learnt.
Shapes: C candidates, H history items, E session events, S sources, Fr request features, Fu user features, Fx cross features, K codes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.query import Candidates, Floats, Query, Rows
from serving.state import TAUS_DAYS
from serving.system import SourceSpec

RANK_OFFSET = 60.0  # of reciprocal-rank fusion (Cormack, Clarke, Buettcher 2009)
NEVER_DAYS = 400.0  # stands for "longer ago than we know"
RELATIVE = 1000.0  # how many times below a source's best a score is still told from none: products of scores are sums of these logs
DUE_LIMIT = 8.0  # gaps overdue beyond which nothing more is said
TASTE_TAU = TAUS_DAYS.index(60.0)  # the decay at which shares of the history are taken
RECENT_TAU = TAUS_DAYS.index(15.0)

REQUEST_FEATURES = (
    "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "place_known", "log_history_items", "log_history_events",
    "log_recent_events", "log_days_since_last", "log_session_events", "log_account_days",
)  # fmt: skip
OWN_FEATURES = (
    *(f"own_decayed_{int(tau)}" for tau in TAUS_DAYS),
    "own_log_count", "own_log_days_since_last", "own_log_mean_gap", "own_due", "own_once", "seen",
)  # fmt: skip
TASTE_FEATURES = (
    "share_category_2", "recent_category_2", "log_items_category_2", "share_category_1", "recent_category_1", "log_items_category_1",
    "share_category_0", "log_events_category_2", "log_days_since_category_2", "due_category_2",
    "share_brand", "brand_within_category", "price_relative", "price_known",
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
        history = _History.of(query)
        for write, names in (
            (_write_own, OWN_FEATURES),
            (_write_taste, TASTE_FEATURES),
            (_write_plan, PLAN_FEATURES),
            (_write_session, SESSION_FEATURES),
        ):
            write(out[at : at + len(names)], query, history, candidates)
            at += len(names)
        _write_sources(out[at:], candidates)
    return np.ascontiguousarray(out.T)  # (C, Fx)


@dataclass(frozen=True)
class _History:
    """The history as the features need it, aligned with `query.history_rows`."""

    rows: Rows  # (H,)
    decayed: Floats  # (H, T)
    counts: Floats  # (H,)
    age: Floats  # (H,) days since the last time
    span: Floats  # (H,) days from the first to the last time

    @classmethod
    def of(cls, query: Query) -> "_History":
        order, state = query.history_order, query.state
        last = state.last_day[order]
        age = np.maximum(query.request.at_day - last, 0.0).astype(np.float32)
        return cls(query.history_rows, query.decayed, state.counts[order], age, (last - state.first_day[order]).astype(np.float32))


def _log(values: Floats) -> Floats:
    """log(1 + x) of values that are not tiny: several times faster than np.log1p."""
    logs: Floats = np.log(values + np.float32(1))
    return logs


def _due(age: Floats, gap: Floats) -> Floats:
    """Log of the gaps gone by since the last time: log 2 is exactly due."""
    return _log(np.minimum(age / np.maximum(gap, np.float32(1)), np.float32(DUE_LIMIT)))


def _write_own(out: Floats, query: Query, history: _History, candidates: Candidates) -> None:
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
    out[: len(TAUS_DAYS), seen] = _log(history.decayed[at]).T
    out[len(TAUS_DAYS) :, seen] = (_log(count), _log(age), _log(gap), np.where(once, 0, _due(age, gap)), once, np.ones(len(at)))


def _write_taste(out: Floats, query: Query, history: _History, candidates: Candidates) -> None:
    """What share of the user's history, and of the present session, is of the candidate's category and brand, and at what price."""
    catalogue = query.catalogue
    session_rows, session_weights = query.session
    rows = np.concatenate((history.rows, session_rows))  # (H + E,)
    if not len(rows):
        return
    codes = np.asarray(catalogue.category).take(rows, axis=0)  # (H + E, 3)
    wanted = np.asarray(catalogue.category).take(candidates.rows, axis=0)  # (C, 3)
    taste = np.concatenate((history.decayed[:, TASTE_TAU], session_weights))
    recent = np.concatenate((history.decayed[:, RECENT_TAU], session_weights))
    size, had = len(catalogue.category_names), len(history.rows)
    shares = _share(codes, taste, size)
    table = np.stack((shares, _share(codes, recent, size), _items(codes[:had], size)), axis=1)  # (K, 3)
    out[0:3] = table.take(wanted[:, 2], axis=0).T
    out[3:6] = table.take(wanted[:, 1], axis=0).T
    out[6] = shares.take(wanted[:, 0])
    out[7:10] = _rhythm(codes[:had, 2], history, size).take(wanted[:, 2], axis=0).T
    brand = np.asarray(catalogue.brand)
    liked, offered = brand.take(rows), brand.take(candidates.rows)
    out[10] = _share(liked[:, None], taste, len(catalogue.brand_names)).take(offered)
    both = np.flatnonzero((out[10] > 0) & (out[3] > 0))  # candidates of a brand and of a category the user has had
    out[11, both] = _within(liked, codes[:, 1], taste, offered[both], wanted[both, 1], size)
    out[12:14] = _price(query, rows, codes[:, 1], taste, candidates.rows, wanted[:, 1])


def _share(codes: NDArray[np.int32], weights: Floats, size: int) -> Floats:
    """Root of the share of the weight that lies in each code, 0 for unknown: codes (N, L), weights (N,) -> (K,)."""
    table = np.bincount(codes.ravel(), np.repeat(weights, codes.shape[1]), minlength=size)
    table[0] = 0
    return np.sqrt((table / max(float(weights.sum()), 1e-6)).astype(np.float32))


def _items(codes: NDArray[np.int32], size: int) -> Floats:
    """Log of how many distinct items of each code the user has had: codes (H, L) -> (K,)."""
    table = np.bincount(codes.ravel(), minlength=size).astype(np.float32)
    table[0] = 0
    return _log(table)


def _rhythm(codes: NDArray[np.int32], history: _History, size: int) -> Floats:
    """Of each category: log events, log days since the last, how due it is: (K, 3)."""
    table = np.zeros((size, 3), np.float32)
    table[:, 1] = np.log(NEVER_DAYS + 1)
    events = np.bincount(codes, history.counts, minlength=size)[codes].astype(np.float32)  # (H,)
    newest, oldest = np.full(size, NEVER_DAYS, np.float32), np.zeros(size, np.float32)
    np.minimum.at(newest, codes, history.age)
    np.maximum.at(oldest, codes, history.age + history.span)
    age = newest[codes]
    gap = np.asarray((oldest[codes] - age) / np.maximum(events - 1, 1), np.float32)
    table[codes] = np.column_stack((_log(events), _log(age), np.where(events > 1, _due(age, gap), 0)))
    table[0] = (0, np.log(NEVER_DAYS + 1), 0)
    return table


def _within(
    liked: NDArray[np.int32], codes: NDArray[np.int32], weights: Floats, offered: NDArray[np.int32], wanted: NDArray[np.int32], size: int
) -> NDArray[np.float64]:
    """Share of the user's weight in the candidate's category that is of the candidate's brand: (C,)."""
    pairs = liked.astype(np.int64) * size + codes
    order = np.argsort(pairs)
    pairs = pairs[order]
    begins = np.flatnonzero(np.diff(pairs, prepend=-1))
    of_pair, pairs = np.add.reduceat(weights[order], begins), pairs[begins]
    asked = offered.astype(np.int64) * size + wanted
    at = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    of_category = np.bincount(codes, weights, minlength=size)[wanted]
    return np.where(pairs[at] == asked, of_pair[at], 0) / np.maximum(of_category, 1e-6)


def _price(
    query: Query, rows: Rows, codes: NDArray[np.int32], weights: Floats, asked: Rows, wanted: NDArray[np.int32]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Log of the candidate's price over what the user usually pays in its category, and whether both are known: (C,), (C,)."""
    prices = np.asarray(query.catalogue.price)
    size = len(query.catalogue.category_names)
    paid, price = np.log(np.maximum(prices.take(rows), np.float32(0.01))), np.log(np.maximum(prices.take(asked), np.float32(0.01)))
    known = np.isfinite(paid)
    codes, weights, paid = codes[known], weights[known], paid[known]
    total = np.bincount(codes, weights, minlength=size)
    total[0] = 0
    usual = np.full(size, np.nan, np.float32)
    usual[codes] = (np.bincount(codes, weights * paid, minlength=size)[codes] / np.maximum(total[codes], 1e-6)).astype(np.float32)
    usual[total <= 0] = np.nan
    relative = price - usual[wanted]
    both = np.isfinite(relative)
    return np.clip(np.where(both, relative, np.float32(0)), -3, 3), both


def _write_plan(out: Floats, query: Query, history: _History, candidates: Candidates) -> None:
    """Whether the item is planned on display and in the mailer, at the user's store."""
    catalogue = query.catalogue
    period = catalogue.plan_at(query.request.at_day)
    if period >= 0 and query.place >= 0:
        out[0] = np.asarray(catalogue.plan_display)[period, query.place].take(candidates.rows) != 0
        out[1] = np.asarray(catalogue.plan_mailer)[period, query.place].take(candidates.rows) != 0


def _write_session(out: Floats, query: Query, history: _History, candidates: Candidates) -> None:
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
    out[at : at + sources] = np.copysign(_log(sizes), scores)
    best = np.maximum(sizes.max(axis=1, keepdims=True), np.float32(1e-9))
    out[at + sources : at + 2 * sources] = np.copysign(_log(sizes * (np.float32(RELATIVE) / best)), scores)
    out[at + 2 * sources :] = np.float32(RANK_OFFSET) / (ranks + np.float32(RANK_OFFSET))  # 0 where the source did not return it
