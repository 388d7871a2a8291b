"""What a user's history and session say of items, categories, brands and prices: tables made once a request, read at each candidate.

Shapes: H history items, E session events, N = H + E, C candidates, K category codes, B brand codes, T decay constants.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.query import Floats, History, Query, Rows
from serving.state import TAUS_DAYS

DUE_LIMIT = 8.0  # gaps overdue beyond which nothing more is said
NEVER_DAYS = 400.0  # stands for "longer ago than we know"
LEAST = 1e-6  # weight that a share is taken of, where there is none
TASTE_TAU = TAUS_DAYS.index(60.0)  # the decay at which shares of the history are taken
RECENT_TAU = TAUS_DAYS.index(15.0)
TASTE_FEATURES = (
    "share_category_2", "recent_category_2", "log_items_category_2", "share_category_1", "recent_category_1", "log_items_category_1",
    "share_category_0", "log_events_category_2", "log_days_since_category_2", "due_category_2",
    "share_brand", "brand_within_category", "price_relative", "price_known",
)  # fmt: skip
SHARE, RECENT, USUAL, SESSION = range(4)  # columns of `Taste.by_category[0]`
ITEMS, EVENTS, AGE, DUE = range(4)  # columns of `Taste.by_category[1]`, all logs


@dataclass(frozen=True)
class Taste:
    """One user's tables, for one moment."""

    rows: Rows  # (N,) of the history, ascending, then of the session
    weights: Floats  # (N,)
    own: Floats  # (10, H) features.OWN_FEATURES of every item had before
    by_category: Floats  # (2, K, 4)
    by_brand: Floats  # (2, B) root of the share; log of the session's weight
    clicked: Rows  # (E,) rows of the session
    lifts: Floats  # (E,) log of all the session's weight on that row

    @classmethod
    def of(cls, query: Query) -> "Taste":
        history, (clicked, session) = query.history, query.session
        taste, recent = history.decayed[TASTE_TAU], history.decayed[RECENT_TAU]
        if len(clicked):
            taste, recent = np.concatenate((taste, session)), np.concatenate((recent, session))
        categories, brands = _tables(query, taste, recent, session)
        _, item = np.unique(clicked, return_inverse=True)  # (E,)
        lifts = log(np.bincount(item, session).take(item).astype(np.float32))
        return cls(query.rows, taste, _own(history), categories, brands, clicked, lifts)


def log(values: Floats) -> Floats:
    """log(1 + x) of values that are not tiny: several times faster than np.log1p."""
    logs: Floats = np.log(values + np.float32(1))
    return logs


def _own(history: History) -> Floats:
    """(10, H) how often, how lately and how regularly the user had each item."""
    own = np.empty((len(TAUS_DAYS) + 6, len(history.rows)), np.float32)
    counts, age = history.counts, history.age
    gap = history.span / np.maximum(counts - 1, np.float32(1))  # mean days between; 0 when had once
    once = counts < 2
    own[: len(TAUS_DAYS)] = history.decayed
    own[-6], own[-5], own[-4] = counts, age, gap
    own[-3] = np.minimum(age / np.maximum(gap, np.float32(1)), np.float32(DUE_LIMIT))  # gaps gone by: 1 is exactly due
    own[-3, once] = 0
    own[:-2] = log(own[:-2])
    own[-2], own[-1] = once, 1
    return own


def _tables(query: Query, taste: Floats, recent: Floats, session: Floats) -> tuple[Floats, Floats]:
    """`by_category` and `by_brand`."""
    catalogue, rows = query.catalogue, query.rows
    counts, age, span = query.history.counts, query.history.age, query.history.span
    codes, brands = len(catalogue.category_names), len(catalogue.brand_names)
    totals = max(float(taste.sum()), LEAST), max(float(recent.sum()), LEAST)
    paths, had = catalogue.category.take(rows, axis=0), len(counts)  # (N, 3)
    table = np.empty((2, codes, 4), np.float32)
    table[0, :, SHARE] = _share(paths, taste, totals[0], codes)
    table[0, :, RECENT] = _share(paths, recent, totals[1], codes)
    table[0, :, USUAL] = _usual(paths[:, 1], taste, catalogue.log_price.take(rows), codes)
    table[0, :, SESSION] = np.bincount(paths[had:, 2], session, minlength=codes)
    table[1, :, ITEMS] = np.bincount(paths[:had].ravel(), minlength=codes)
    table[1, :, EVENTS:] = _rhythm(paths[:had, 2], counts, age, span, codes)
    table[0, 0, SESSION] = table[1, 0, ITEMS] = 0
    table[0, :, SESSION], table[1] = log(table[0, :, SESSION]), log(table[1])
    brand = catalogue.brand.take(rows)
    of_session = np.bincount(brand[had:], session, minlength=brands).astype(np.float32)
    of_session[0] = 0
    return table, np.stack((_share(brand[:, None], taste, totals[0], brands), log(of_session)))


def _share(codes: NDArray[np.int32], weights: Floats, total: float, size: int) -> Floats:
    """Root of the share of the weight that lies in each code, 0 for unknown: codes (N, L), weights (N,) -> (size,)."""
    table = np.bincount(codes.ravel(), np.repeat(weights, codes.shape[1]), minlength=size)
    table[0] = 0
    shares: Floats = np.sqrt((table / total).astype(np.float32))
    return shares


def _rhythm(codes: NDArray[np.int32], counts: Floats, age: Floats, span: Floats, size: int) -> Floats:
    """Of each code: events, days since the last, how due it is: (size, 3)."""
    events = np.bincount(codes, counts, minlength=size).astype(np.float32)
    newest, oldest = np.full(size, NEVER_DAYS, np.float32), np.zeros(size, np.float32)
    np.minimum.at(newest, codes, age)
    np.maximum.at(oldest, codes, age + span)
    events[0], newest[0], oldest[0] = 0, NEVER_DAYS, 0
    gap = (oldest - newest) / np.maximum(events - 1, np.float32(1))
    due = np.minimum(newest / np.maximum(gap, np.float32(1)), np.float32(DUE_LIMIT))
    return np.stack((events, newest, np.where(events > 1, due, np.float32(0))), axis=1)


def _usual(codes: NDArray[np.int32], weights: Floats, prices: Floats, size: int) -> NDArray[np.float64]:
    """(size,) log of what the user usually pays in each code; NaN where nothing is known."""
    known = np.isfinite(prices)
    codes, weights = codes[known], weights[known]
    total = np.bincount(codes, weights, minlength=size)
    total[0] = 0
    paid = np.bincount(codes, weights * prices[known], minlength=size) / np.maximum(total, LEAST)
    return np.where(total > 0, paid, np.nan)


def write_taste(out: Floats, query: Query, taste: Taste, rows: Rows) -> None:
    """What share of the user's history, and of the present session, is of the candidate's category and brand, and at what price."""
    if not len(taste.rows):
        return
    catalogue, (plain, logged) = query.catalogue, taste.by_category  # (K, 4) each
    wide, middle, narrow = catalogue.category.take(rows, axis=0).T  # (C,) each
    near, wider, counted = plain.take(narrow, axis=0), plain.take(middle, axis=0), logged.take(narrow, axis=0)  # (C, 4) each
    out[0:2], out[2] = near[:, : RECENT + 1].T, counted[:, ITEMS]
    out[3:5], out[5] = wider[:, : RECENT + 1].T, logged[:, ITEMS].take(middle)
    out[6] = plain[:, SHARE].take(wide)
    out[7:10] = counted[:, EVENTS:].T
    brand = catalogue.brand.take(rows)
    out[10] = taste.by_brand[0].take(brand)
    both = np.flatnonzero((out[10] > 0) & (out[3] > 0))  # candidates of a brand and of a category the user has had
    out[11, both] = _within(query, taste, rows[both], middle[both])
    relative = catalogue.log_price.take(rows) - wider[:, USUAL]
    known = np.isfinite(relative)
    out[12] = np.clip(np.where(known, relative, np.float32(0)), -3, 3)
    out[13] = known


def _within(query: Query, taste: Taste, rows: Rows, category: NDArray[np.int32]) -> NDArray[np.float64]:
    """Share of the user's weight in the candidate's category that is of the candidate's brand: (C,)."""
    catalogue, weights = query.catalogue, taste.weights
    pairs = catalogue.brand_category
    of_pair = np.bincount(pairs.take(taste.rows), weights, minlength=catalogue.pairs)
    of_category = np.bincount(catalogue.category[taste.rows, 1], weights, minlength=len(catalogue.category_names))
    shares: NDArray[np.float64] = of_pair.take(pairs.take(rows)) / np.maximum(of_category.take(category), LEAST)
    return shares
