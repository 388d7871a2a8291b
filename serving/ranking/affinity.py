"""What a user's history and session say of items, categories, brands and prices: tables made once a request, read at each candidate.

Shapes: H history items, E session events, N = H + E, C candidates, K category codes, B brand codes, T decay constants.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import AFFINITY_FEATURES, TAUS_DAYS
from serving.bundle.arrays import Floats
from serving.query import History, Query

DUE_LIMIT = 8.0  # gaps overdue beyond which nothing more is said
NEVER_DAYS = 400.0  # stands for "longer ago than we know"
LEAST = 1e-6  # weight that a share is taken of, where there is none
AFFINITY_TAU = TAUS_DAYS.index(60.0)  # the decay at which shares of the history are taken
RECENT_TAU = TAUS_DAYS.index(15.0)


@dataclass(frozen=True)
class Affinity:
    """One user's tables, for one moment. Code 0, unknown, stands for nothing in particular: no share, no count."""

    labels: NDArray[np.int32]  # (N, 6) see Catalogue.labels; of the history, ascending by row, then of the session
    weights: Floats  # (N,) counts decayed by AFFINITY_TAU, then weights of the session
    total: float  # of the weights, at least a little
    own: Floats  # (H, 10) features.OWN_FEATURES of every item had before
    share: Floats  # (K,) root of the share of the weights
    recent: Floats  # (K,) root of the share of the weights by RECENT_TAU
    items: Floats  # (K,) log1p of distinct items had
    events: Floats  # (K,) log1p of times had, of codes at level 2; so the next two
    newest: Floats  # (K,) log1p of days since the last
    due: Floats  # (K,) log1p of the gaps gone by since the last
    middle: NDArray[np.float64]  # (K,) weight of each code at level 1
    usual: Floats  # (K,) log of what the user usually pays in each code at level 1; NaN where nothing is known

    @classmethod
    def of(cls, query: Query) -> "Affinity":
        history, session, codes = query.history, query.session[1], len(query.catalogue.category_names)
        labels = query.catalogue.labels[query.rows]
        weights = np.concatenate((history.decayed[AFFINITY_TAU], session))
        recent = np.concatenate((history.decayed[RECENT_TAU], session))
        total = max(float(weights.sum()), LEAST)
        paths, middle = labels[:, :3], _by_code(labels[:, 1:2], weights, codes)
        return cls(
            labels, weights, total, own_features(history), _root_share(_by_code(paths, weights, codes), total),
            _root_share(_by_code(paths, recent, codes), max(float(recent.sum()), LEAST)),
            *_rhythm(paths[: len(history.rows)], history, codes), middle, _usual(labels, weights, codes),
        )  # fmt: skip


def log(values: Floats) -> Floats:
    """log(1 + x), the addition in float32: not np.log1p, the compiled loops do the same."""
    logs: Floats = np.log(values + np.float32(1))
    return logs


def own_features(history: History) -> Floats:
    """(H, 10): how often, how lately and how regularly the user had each item."""
    counts, age = history.counts, history.age
    gap = history.span / np.maximum(counts - 1, 1)  # mean days between; 0 when had once
    once = counts < 2
    due = np.where(once, 0, np.minimum(age / np.maximum(gap, 1), DUE_LIMIT))  # gaps gone by: 1 is exactly due
    return np.column_stack((log(np.column_stack((*history.decayed, counts, age, gap, due))), once, np.ones(len(age), np.float32)))


def _by_code(paths: NDArray[np.int32], weights: Floats, codes: int) -> NDArray[np.float64]:
    """(K,) sums of the weights (N,) by each code of the paths (N, levels)."""
    return np.bincount(paths.ravel(), np.repeat(weights, paths.shape[1]), codes).astype(np.float64)  # as it is, or whole where empty


def _root_share(sums: NDArray[np.float64], total: float) -> Floats:
    """(K,)"""
    roots: Floats = np.sqrt((sums / total).astype(np.float32))
    roots[0] = 0
    return roots


def _rhythm(paths: NDArray[np.int32], history: History, codes: int) -> tuple[Floats, Floats, Floats, Floats]:
    """`Affinity.items`, `.events`, `.newest` and `.due` from the paths (H, 3) of the history."""
    narrow = paths[:, 2]
    items = _by_code(paths, np.ones(len(paths), np.float32), codes).astype(np.float32)
    events = np.bincount(narrow, history.counts, codes).astype(np.float32)
    newest, oldest = np.full(codes, NEVER_DAYS, np.float32), np.zeros(codes, np.float32)
    np.minimum.at(newest, narrow, history.age)
    np.maximum.at(oldest, narrow, history.age + history.span)
    items[0], events[0], newest[0] = 0, 0, NEVER_DAYS
    gap = (oldest - newest) / np.maximum(events - 1, 1)
    due = np.where(events > 1, np.minimum(newest / np.maximum(gap, 1), DUE_LIMIT), 0).astype(np.float32)
    return log(items), log(events), log(newest), log(due)


def _usual(labels: NDArray[np.int32], weights: Floats, codes: int) -> Floats:
    """`Affinity.usual`: the mean log price by weight, of items whose price is known."""
    prices = labels[:, 5].view(np.float32)
    known = np.isfinite(prices)
    code, weights, prices = labels[known, 1], weights[known], prices[known]
    total = np.bincount(code, weights, codes)
    paid = np.where(total > 0, np.bincount(code, weights * prices, codes) / np.maximum(total, LEAST), np.nan).astype(np.float32)
    paid[0] = np.nan
    return paid


def affinity_features(query: Query, affinity: Affinity, labels: NDArray[np.int32]) -> Floats:
    """(C, 14): what share of the user's history, and of the present session, is of the candidate's category and brand, and at what price.

    labels (C, 6): of the candidates.
    """
    if not len(affinity.weights):
        return np.zeros((len(labels), len(AFFINITY_FEATURES)), np.float32)
    wide, middle, narrow, brand, pair = labels.T[:5]  # (C,) each
    of_brand = _by_code(affinity.labels[:, 3:4], affinity.weights, len(query.catalogue.brand_names))
    by_brand = _root_share(of_brand, affinity.total)[brand]
    of_pair = np.bincount(affinity.labels[:, 4], affinity.weights, query.catalogue.pairs)
    within = (of_pair[pair] / np.maximum(affinity.middle[middle], LEAST)).astype(np.float32)  # of the category, that of the brand
    relative = labels[:, 5].view(np.float32) - affinity.usual[middle]
    priced = np.isfinite(relative)
    share, recent, items = affinity.share, affinity.recent, affinity.items
    columns = (
        share[narrow], recent[narrow], items[narrow], share[middle], recent[middle], items[middle], share[wide],
        affinity.events[narrow], affinity.newest[narrow], affinity.due[narrow], by_brand,
        np.where((by_brand > 0) & (share[middle] > 0), within, 0), np.where(priced, np.clip(relative, -3, 3), 0), priced,
    )  # fmt: skip
    return np.column_stack(columns)
