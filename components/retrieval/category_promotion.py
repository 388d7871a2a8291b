"""Fits `serving/retrieval/category_promotion.py`: nothing is trained, everything is counted.

Shapes: I items, A items on offer, P places, C codes of a grouping.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from serving.retrieval.category_promotion import GROUPINGS, Offers, grouping_codes
from serving.system import SourceSpec

# Chosen on the choosing week (new R@1000 .316): powers of the lifts of category, type, brand; of the store's share; of promotions.
POWERS = (0.3, 0.3, 0.3)
STORE_POWER = 0.25
DISPLAY_LIFT, MAILER_LIFT, CHAIN_LIFT = 0.3, 1.0, 0.5
DAYS = 28.0  # users counted as popularity
TAU_DAYS = 150.0
PRIOR_COUNTS = 20.0
_LEAST_POPULARITY = 0.02  # users, of an item that is planned but was not sold lately
_STORE_PRIOR = 2000.0  # counts of everyone's taste mixed into a store's
_LEAST_SHARE = 1e-5


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """Offers: what was sold in the last `DAYS`, or is planned for any place at any known time."""
    history, catalogue = cut.history, cut.catalogue
    popularity = history.users_since(cut.users.cut_day - DAYS)  # (I,)
    planned = (np.asarray(catalogue.plan_display) > 0).any((0, 1)) | (np.asarray(catalogue.plan_mailer) > 0).any((0, 1))
    rows = np.flatnonzero((popularity > 0) | planned).astype(np.int32)
    weights = history.decay(TAU_DAYS)
    shares = [_shares(grouping_codes(catalogue, name), history.row, weights) for name in GROUPINGS]
    ends, at, factor, default = _places(cut, rows, weights)
    Offers(
        rows=rows, popularity=(popularity[rows] + _LEAST_POPULARITY).astype(np.float32),
        local_ends=ends, local_at=at, local_factor=factor, local_default=default,
        share_ends=np.cumsum([len(share) for share in shares]), shares=np.concatenate(shares),
        powers=POWERS, display_lift=DISPLAY_LIFT, mailer_lift=MAILER_LIFT, chain_lift=CHAIN_LIFT,
        tau_days=TAU_DAYS, prior_counts=PRIOR_COUNTS, items=len(catalogue),
    ).save(folder)  # fmt: skip


def _shares(codes: NDArray[np.int32], row: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C,) share of all counts that went to each code."""
    sums = np.bincount(codes[row], weights, minlength=int(codes.max(initial=0)) + 1)
    return np.maximum(sums / max(sums.sum(), 1e-9), _LEAST_SHARE).astype(np.float32)


def _places(cut: Cut, rows: NDArray[np.int32], weights: NDArray[np.float32]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """For every place what its usual users buy there: ends (P,), positions in `rows`, factors; and the factor of all else (P,)."""
    history, catalogue = cut.history, cut.catalogue
    place_of_user = np.array([catalogue.place_index.get(bytes(name).decode(), -1) for name in cut.users.place], np.int64)
    position = np.full(len(catalogue), -1, np.int64)
    position[rows] = np.arange(len(rows))
    place, at = place_of_user[history.user], position[history.row]
    total = np.bincount(place[place >= 0], weights[place >= 0], minlength=len(catalogue.places))
    offered = (place >= 0) & (at >= 0)
    key, inverse = np.unique(place[offered] * len(rows) + at[offered], return_inverse=True)
    sold = np.bincount(inverse, weights[offered], minlength=len(key))
    everywhere = np.bincount(history.row, weights, minlength=len(catalogue))[rows] + 0.5
    share = everywhere / everywhere.sum()
    place, at = key // max(len(rows), 1), key % max(len(rows), 1)
    smoothed = (sold + _STORE_PRIOR * share[at]) / ((total[place] + _STORE_PRIOR) * share[at])
    default = (_STORE_PRIOR / (total + _STORE_PRIOR)) ** STORE_POWER
    ends = np.searchsorted(place, np.arange(len(catalogue.places)), side="right")
    return ends, at.astype(np.int32), (smoothed**STORE_POWER).astype(np.float32), default.astype(np.float32)
