"""What a user's history says of the categories, brands and prices the user likes: tables by code, read at each candidate's codes.

Shapes: C candidates, H history items, E session events, K codes, T decay constants.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.query import Candidates, Floats, Query, Rows
from serving.state import TAUS_DAYS

DUE_LIMIT = 8.0  # gaps overdue beyond which nothing more is said
NEVER_DAYS = 400.0  # stands for "longer ago than we know"
TASTE_TAU = TAUS_DAYS.index(60.0)  # the decay at which shares of the history are taken
RECENT_TAU = TAUS_DAYS.index(15.0)
TASTE_FEATURES = (
    "share_category_2", "recent_category_2", "log_items_category_2", "share_category_1", "recent_category_1", "log_items_category_1",
    "share_category_0", "log_events_category_2", "log_days_since_category_2", "due_category_2",
    "share_brand", "brand_within_category", "price_relative", "price_known",
)  # fmt: skip


@dataclass(frozen=True)
class History:
    """The history as the features need it, aligned with `query.history_rows`."""

    rows: Rows  # (H,)
    decayed: Floats  # (H, T)
    counts: Floats  # (H,)
    age: Floats  # (H,) days since the last time
    span: Floats  # (H,) days from the first to the last time

    @classmethod
    def of(cls, query: Query) -> "History":
        order, state = query.history_order, query.state
        last = state.last_day[order]
        age = np.maximum(query.request.at_day - last, 0.0).astype(np.float32)
        return cls(query.history_rows, query.decayed, state.counts[order], age, (last - state.first_day[order]).astype(np.float32))


def log(values: Floats) -> Floats:
    """log(1 + x) of values that are not tiny: several times faster than np.log1p."""
    logs: Floats = np.log(values + np.float32(1))
    return logs


def due(age: Floats, gap: Floats) -> Floats:
    """Log of the gaps gone by since the last time: log 2 is exactly due."""
    return log(np.minimum(age / np.maximum(gap, np.float32(1)), np.float32(DUE_LIMIT)))


def write_taste(out: Floats, query: Query, history: History, candidates: Candidates) -> None:
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
    return log(table)


def _rhythm(codes: NDArray[np.int32], history: History, size: int) -> Floats:
    """Of each category: log events, log days since the last, how due it is: (K, 3)."""
    table = np.zeros((size, 3), np.float32)
    table[:, 1] = np.log(NEVER_DAYS + 1)
    events = np.bincount(codes, history.counts, minlength=size)[codes].astype(np.float32)  # (H,)
    newest, oldest = np.full(size, NEVER_DAYS, np.float32), np.zeros(size, np.float32)
    np.minimum.at(newest, codes, history.age)
    np.maximum.at(oldest, codes, history.age + history.span)
    age = newest[codes]
    gap = np.asarray((oldest[codes] - age) / np.maximum(events - 1, 1), np.float32)
    table[codes] = np.column_stack((log(events), log(age), np.where(events > 1, due(age, gap), 0)))
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
