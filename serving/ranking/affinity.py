"""What a user's history and session say of items, categories, brands and prices: tables made once a request, read at each candidate.

Shapes: H history items, E session events, N = H + E, C candidates, K category codes, B brand codes, T decay constants.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import Floats
from serving.query import History, Query

DUE_LIMIT = 8.0  # gaps overdue beyond which nothing more is said
NEVER_DAYS = 400.0  # stands for "longer ago than we know"
LEAST = 1e-6  # weight that a share is taken of, where there is none
AFFINITY_TAU = TAUS_DAYS.index(60.0)  # the decay at which shares of the history are taken
RECENT_TAU = TAUS_DAYS.index(15.0)


@dataclass(frozen=True)
class Affinity:
    """One user's tables, for one moment."""

    weights: Floats  # (N,) of the history, ascending by row, then of the session
    total: float  # of the weights, at least a little
    labels: NDArray[np.int32]  # (N, 6) see Catalogue.labels
    own: Floats  # (10, H + 1) features.OWN_FEATURES of every item had before; the last are zeros, for all others
    by_category: Floats  # (6, K) roots of the shares of weight and recent weight; logs of items, events, days since the last, how due
    middle: NDArray[Any]  # (K,) weight of each code at level 1
    usual: Floats  # (K,) log of what the user usually pays in each; NaN where nothing is known

    @classmethod
    def of(cls, query: Query) -> "Affinity":
        history, (clicked, session) = query.history, query.session
        affinity, recent = history.decayed[AFFINITY_TAU], history.decayed[RECENT_TAU]
        if len(clicked):
            affinity, recent = np.concatenate((affinity, session)), np.concatenate((recent, session))
        labels, codes = query.catalogue.labels.take(query.rows, axis=0), len(query.catalogue.category_names)
        total = max(float(affinity.sum()), LEAST)
        by_category = _by_category(labels[:, :3].astype(np.intp), affinity, total, recent, history, codes)
        middle = np.bincount(labels[:, 1], affinity, codes)
        return cls(affinity, total, labels, _own(history), by_category, middle, _usual(labels, affinity, middle))


def log(values: Floats) -> Floats:
    """log(1 + x) of values that are not tiny: several times faster than np.log1p."""
    logs: Floats = np.log(values + np.float32(1))
    return logs


def _own(history: History) -> Floats:
    """`Affinity.own`: how often, how lately and how regularly the user had each item."""
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


def _by_category(paths: NDArray[np.intp], affinity: Floats, total: float, recent: Floats, history: History, codes: int) -> Floats:
    """`Affinity.by_category`, as of nothing for unknown: paths (N, 3), weights (N,)."""
    table, each, narrow = np.empty((6, codes), np.float32), paths.ravel(), paths[: len(history.rows), 2]
    _, _, items, events, newest, due = table
    np.divide(np.bincount(each, np.repeat(affinity, 3), codes), total, out=table[0], casting="same_kind")
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
    """`Affinity.usual`: labels (N, 6), weights (N,), and their sums (K,) over all."""
    prices, code = labels[:, 5].view(np.float32), labels[:, 1]
    known = np.isfinite(prices)
    if not known.all():
        code, weights, prices = code[known], weights[known], prices[known]
        total = np.bincount(code, weights, len(total))
    paid = (np.bincount(code, weights * prices, len(total)) / np.maximum(total, LEAST)).astype(np.float32)
    paid[total <= 0] = np.nan
    paid[0] = np.nan
    return paid


def write_affinity(out: Floats, query: Query, affinity: Affinity, labels: NDArray[np.int32]) -> None:
    """What share of the user's history, and of the present session, is of the candidate's category and brand, and at what price.

    labels (C, 6): of the candidates.
    """
    if not len(affinity.weights):
        out[:] = 0
        return
    wide, middle, narrow, brand, pair = np.ascontiguousarray(labels.T[:5], np.intp)  # (C,) each
    affinity.by_category[:3].take(narrow, axis=1, out=out[:3], mode="clip")
    affinity.by_category[:3].take(middle, axis=1, out=out[3:6], mode="clip")
    affinity.by_category[0].take(wide, out=out[6], mode="clip")
    affinity.by_category[3:].take(narrow, axis=1, out=out[7:10], mode="clip")
    of_brand = np.bincount(affinity.labels[:, 3], affinity.weights, len(query.catalogue.brand_names))
    of_brand[0] = 0
    np.divide(of_brand.take(brand), affinity.total, out=out[10], casting="same_kind")
    np.sqrt(out[10], out=out[10])
    np.multiply(_within(query, affinity, pair, middle), (out[10] > 0) & (out[3] > 0), out=out[11], casting="same_kind")
    relative = labels[:, 5].view(np.float32) - affinity.usual.take(middle)
    known = np.isfinite(relative)
    np.maximum(np.where(known, relative, np.float32(0)), np.float32(-3), out=out[12])
    np.minimum(out[12], np.float32(3), out=out[12])
    out[13] = known


def _within(query: Query, affinity: Affinity, pair: NDArray[np.intp], category: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share of the user's weight in the candidate's category that is of the candidate's brand: (C,)."""
    had = affinity.labels[:, 4]
    slots = np.empty(query.catalogue.pairs, np.int32)  # where a pair is among those had; what is not written is read, and found out
    slots[had] = np.arange(len(had), dtype=np.int32)
    of_pair = np.bincount(slots.take(had), affinity.weights, len(had))
    at = slots.take(pair)
    shares = of_pair.take(at, mode="clip") / np.maximum(affinity.middle.take(category), LEAST)
    shares *= had.take(at, mode="clip") == pair
    return shares
