"""What a user's history and session say of items, categories, brands and prices: tables made once a request, read at each candidate.

Shapes: H history items, E session events, N = H + E, C candidates, K category codes, B brand codes, T decay constants.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.query import Floats, History, Query
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


@dataclass(frozen=True)
class Taste:
    """One user's tables, for one moment."""

    weights: Floats  # (N,) of the history, ascending by row, then of the session
    total: float  # of the weights, at least a little
    labels: NDArray[np.int32]  # (N, 6) see Catalogue.labels
    own: Floats  # (10, H + 1) features.OWN_FEATURES of every item had before; the last are zeros, for all others
    by_category: Floats  # (6, K) roots of the shares of weight and recent weight; logs of items, events, days since the last, how due
    middle: NDArray[Any]  # (K,) weight of each code at level 1
    usual: Floats  # (K,) log of what the user usually pays in each; NaN where nothing is known

    @classmethod
    def of(cls, query: Query) -> "Taste":
        history, (clicked, session) = query.history, query.session
        taste, recent = history.decayed[TASTE_TAU], history.decayed[RECENT_TAU]
        if len(clicked):
            taste, recent = np.concatenate((taste, session)), np.concatenate((recent, session))
        labels, codes = query.catalogue.labels.take(query.rows, axis=0), len(query.catalogue.category_names)
        total = max(float(taste.sum()), LEAST)
        by_category = _by_category(labels[:, :3].astype(np.intp), taste, total, recent, history, codes)
        middle = np.bincount(labels[:, 1], taste, codes)
        return cls(taste, total, labels, _own(history), by_category, middle, _usual(labels, taste, middle))


def log(values: Floats) -> Floats:
    """log(1 + x) of values that are not tiny: several times faster than np.log1p."""
    logs: Floats = np.log(values + np.float32(1))
    return logs


def _own(history: History) -> Floats:
    """`Taste.own`: how often, how lately and how regularly the user had each item."""
    own = np.zeros((len(TAUS_DAYS) + 6, len(history.rows) + 1), np.float32)
    counts, age, had = history.counts, history.age, own[:, :-1]
    gap = history.span / np.maximum(counts - 1, np.float32(1))  # mean days between; 0 when had once
    once = counts < 2
    had[: len(TAUS_DAYS)] = history.decayed
    had[-6], had[-5], had[-4] = counts, age, gap
    due = np.minimum(age / np.maximum(gap, np.float32(1)), np.float32(DUE_LIMIT))  # gaps gone by: 1 is exactly due
    np.multiply(due, ~once, out=had[-3])
    own[:-2] += np.float32(1)
    np.log(own[:-2], out=own[:-2])
    had[-2], had[-1] = once, 1
    return own


def _by_category(paths: NDArray[np.intp], taste: Floats, total: float, recent: Floats, history: History, codes: int) -> Floats:
    """`Taste.by_category`, as of nothing for unknown: paths (N, 3), weights (N,)."""
    table, each, narrow = np.empty((6, codes), np.float32), paths.ravel(), paths[: len(history.rows), 2]
    _, _, items, events, newest, due = table
    np.divide(np.bincount(each, np.repeat(taste, 3), codes), total, out=table[0], casting="same_kind")
    np.divide(np.bincount(each, np.repeat(recent, 3), codes), max(float(recent.sum()), LEAST), out=table[1], casting="same_kind")
    items[:] = np.bincount(each[: 3 * len(narrow)], minlength=codes)
    events[:] = np.bincount(narrow, history.counts, codes)
    newest[:] = NEVER_DAYS
    oldest = np.zeros(codes, np.float32)
    np.minimum.at(newest, narrow, history.age)
    np.maximum.at(oldest, narrow, history.age + history.span)
    table[:, 0], newest[0], oldest[0] = 0, NEVER_DAYS, 0
    gap = (oldest - newest) / np.maximum(events - np.float32(1), np.float32(1))
    np.divide(newest, np.maximum(gap, np.float32(1)), out=due)
    np.minimum(due, np.float32(DUE_LIMIT), out=due)
    due *= events > 1
    np.sqrt(table[:2], out=table[:2])
    table[2:] += np.float32(1)
    np.log(table[2:], out=table[2:])
    return table


def _usual(labels: NDArray[np.int32], weights: Floats, total: NDArray[Any]) -> Floats:
    """`Taste.usual`: labels (N, 6), weights (N,), and their sums (K,) over all."""
    prices, code = labels[:, 5].view(np.float32), labels[:, 1]
    known = np.isfinite(prices)
    if not known.all():
        code, weights, prices = code[known], weights[known], prices[known]
        total = np.bincount(code, weights, len(total))
    paid = (np.bincount(code, weights * prices, len(total)) / np.maximum(total, LEAST)).astype(np.float32)
    paid[total <= 0] = np.nan
    paid[0] = np.nan
    return paid


def write_taste(out: Floats, query: Query, taste: Taste, labels: NDArray[np.int32]) -> None:
    """What share of the user's history, and of the present session, is of the candidate's category and brand, and at what price.

    labels (C, 6): of the candidates.
    """
    if not len(taste.weights):
        out[:] = 0
        return
    wide, middle, narrow, brand, pair = np.ascontiguousarray(labels.T[:5], np.intp)  # (C,) each
    taste.by_category[:3].take(narrow, axis=1, out=out[:3], mode="clip")
    taste.by_category[:3].take(middle, axis=1, out=out[3:6], mode="clip")
    taste.by_category[0].take(wide, out=out[6], mode="clip")
    taste.by_category[3:].take(narrow, axis=1, out=out[7:10], mode="clip")
    of_brand = np.bincount(taste.labels[:, 3], taste.weights, len(query.catalogue.brand_names))
    of_brand[0] = 0
    np.divide(of_brand.take(brand), taste.total, out=out[10], casting="same_kind")
    np.sqrt(out[10], out=out[10])
    np.multiply(_within(query, taste, pair, middle), (out[10] > 0) & (out[3] > 0), out=out[11], casting="same_kind")
    relative = labels[:, 5].view(np.float32) - taste.usual.take(middle)
    known = np.isfinite(relative)
    np.maximum(np.where(known, relative, np.float32(0)), np.float32(-3), out=out[12])
    np.minimum(out[12], np.float32(3), out=out[12])
    out[13] = known


def _within(query: Query, taste: Taste, pair: NDArray[np.intp], category: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of the user's weight in the candidate's category that is of the candidate's brand: (C,)."""
    had = taste.labels[:, 4]
    slots = np.empty(query.catalogue.pairs, np.int32)  # where a pair is among those had; what is not written is read, and found out
    slots[had] = np.arange(len(had), dtype=np.int32)
    of_pair = np.bincount(slots.take(had), taste.weights, len(had))
    at = slots.take(pair)
    shares = of_pair.take(at, mode="clip") / np.maximum(taste.middle.take(category), LEAST)
    shares *= had.take(at, mode="clip") == pair
    return shares
