"""Fits `serving/retrieval/arrivals.py`: how many users a new item will find, from what those found that were new in the weeks before.

At a moment an item is new that nobody had, or only in the `days` before. Of those at two moments before the cut it is counted who had
one for the first time in the days after, and a Poisson regression says what of an item foretells it:
    log E[users] = b + sum_f w_f x_f
x: the log of what new items of the same category and brand found in the days before that moment; the same of those listed next to it;
how many had it so far; how long it is there. All is made from the first times in the users' states, so nothing after the cut is read.
Nothing stands for an item alone, so one that nobody had is judged by its content. Shapes: I items, G groupings, N codes, F features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from serving.bundle.catalogue import Catalogue
from serving.retrieval.arrivals import Debuts, grouped, planned_anywhere
from serving.system import SourceSpec

# Chosen on the choosing week.
MOST = 2048  # kept, of those that will find most: a pool has room for some dozens, and each costs a request
TAU_DAYS = 150.0
PRIOR_COUNTS = 20.0  # of the lifts
_PRIOR_ITEMS = 5.0  # usual ones mixed into what a group found
_NEIGHBOURS = 100  # to each side, of those listed next to an item
_BANDS = 8
_RIDGE = 1.0
_LEAST_SHARE = 1e-5

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class FirstTimes:
    """Who had what for the first time when, and what the items are."""

    first: Floats64  # (I,) day anybody first had it; inf never
    row: NDArray[np.int32]  # (N,) of each user's first time
    day: Floats64  # (N,)
    codes: NDArray[np.int64]  # (I, G - 1) without the price, which is often known of what was sold alone
    listed: NDArray[np.intp]  # (I,) rows in the order in which they were listed; none where nothing tells
    created: Floats64  # (I,) NaN unknown
    days: float

    @classmethod
    def of(cls, cut: Cut, prices: NDArray[np.float32], days: float) -> "FirstTimes":
        history, catalogue = cut.history, cut.catalogue
        first = np.full(len(catalogue), np.inf)
        np.minimum.at(first, history.row, history.first_day)
        codes = grouped(catalogue, prices)[:, :-1]
        return cls(first, history.row, history.first_day, codes, listing(catalogue), np.asarray(catalogue.created_day), days)

    def users(self, begin: float, end: float) -> Floats64:
        """(I,) who had it for the first time in these days."""
        within = (self.day >= begin) & (self.day < end)
        return np.bincount(self.row[within], minlength=len(self.first)).astype(np.float64)

    def features(self, at: float) -> tuple[Floats64, list[Floats64]]:
        """(I, F) what is known of every item at a moment, and the log rate of each grouping's codes: the first G - 1 of the features."""
        since = at - 2 * self.days
        new = (self.first >= since).astype(np.float64)
        found = self.users(since, at) * new
        usual = max(found.sum(), 0.5) / max(new.sum(), 1)

        def rate(of_found: NDArray[np.number], of_new: NDArray[np.number]) -> Floats64:
            return np.log((of_found + _PRIOR_ITEMS * usual) / (of_new + _PRIOR_ITEMS) / usual)

        rates = [rate(np.bincount(code, found), np.bincount(code, new)) for code in self.codes.T]
        columns = [known[code] for known, code in zip(rates, self.codes.T, strict=True)]
        columns.append(rate(self._beside(found), self._beside(new)) if len(self.listed) else np.zeros(len(new)))
        had = self.users(at - self.days, at)
        age = np.where(self.created < at, at - self.created, np.nan)  # what came later was not there, and is as good as of no date
        ages = [(age < limit).astype(np.float64) for limit in (self.days / 2, self.days, 2 * self.days, np.inf)]
        return np.column_stack((*columns, had > 0, np.log1p(had), *ages)), rates

    def _beside(self, values: Floats64) -> Floats64:
        """(I,) sum over the items listed next to each."""
        total = np.append(0, np.cumsum(values[self.listed]))
        place = np.arange(len(values))
        sums = total[np.minimum(place + _NEIGHBOURS + 1, len(values))] - total[np.maximum(place - _NEIGHBOURS, 0)]
        return sums[np.argsort(self.listed)]


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """The new items that will find most, and what to expect of those posted later."""
    catalogue, days, now = cut.catalogue, float(spec.settings["days"]), cut.users.cut_day
    prices = bands(catalogue)
    times = FirstTimes.of(cut, prices, days)
    weights, base = learnt(times, [now - days, now - days / 2])
    features, rates = times.features(now)
    new = np.flatnonzero(times.first >= now - days)
    logs = base + features[new] @ weights
    expected = np.exp(logs) * planned_anywhere(catalogue, len(catalogue.plan_from) - 1, new.astype(np.int32))
    best = np.sort(np.argsort(-expected, kind="stable")[:MOST])
    listed = len(rates)  # the column after the groups' is that of the items listed beside
    codes = grouped(catalogue, prices)
    factors = [weight * known for weight, known in zip(weights[:listed], rates, strict=True)] + [np.zeros(len(prices) + 2)]
    Debuts(
        rows=new[best].astype(np.int32), found=np.exp(logs[best]).astype(np.float32), prices=prices,
        share_ends=np.cumsum([len(known) for known in factors]), shares=shares(cut, codes, [len(known) for known in factors]),
        factors=np.concatenate(factors).astype(np.float32),
        posted=float(base + np.max(weights[listed] * features[:, listed], initial=0.0)),  # nothing was listed later
        tau_days=TAU_DAYS, prior_counts=PRIOR_COUNTS, items=len(catalogue),
    ).save(folder)  # fmt: skip


def learnt(times: FirstTimes, moments: list[float]) -> tuple[Floats64, float]:
    """Weights of the features and the base, from what was new at each moment and found in half of `days` after it."""
    from scipy.optimize import minimize

    asked = [(at, times.first >= at - times.days) for at in moments]
    x = np.concatenate([times.features(at)[0][new] for at, new in asked])
    y = np.concatenate([times.users(at, at + times.days / 2)[new] for at, new in asked])
    x = np.column_stack((np.ones(len(x)), x))
    ridge = np.append(1e-6, np.full(x.shape[1] - 1, _RIDGE))

    def loss(w: Floats64) -> tuple[float, Floats64]:
        log = np.clip(x @ w, -30, 30)
        expected = np.exp(log)
        return float((expected - y * log).sum() + (ridge * w * w).sum() / 2), x.T @ (expected - y) + ridge * w

    start = np.zeros(x.shape[1])
    start[0] = np.log(max(y.sum(), 0.5) / max(len(y), 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found[1:], float(found[0])


def listing(catalogue: Catalogue) -> NDArray[np.intp]:
    """(I,) rows in the order of their ids, where those are numbers and so count up as items are listed; else none."""
    ids = np.asarray(catalogue.item_ids)
    if not len(ids) or not np.char.isdigit(ids).all():
        return np.empty(0, np.intp)
    return np.argsort(ids.astype(np.float64), kind="stable")


def bands(catalogue: Catalogue) -> NDArray[np.float32]:
    """Prices that cut what is known of them into bands of as many items each."""
    known = np.asarray(catalogue.price)[~np.isnan(catalogue.price)]
    return np.unique(np.quantile(known, np.arange(1, _BANDS) / _BANDS)).astype(np.float32) if len(known) else np.empty(0, np.float32)


def shares(cut: Cut, codes: NDArray[np.int64], sizes: list[int]) -> NDArray[np.float32]:
    """(N,) share of all counts that went to each code, grouping after grouping."""
    row, counts = cut.history.row, cut.history.decay(TAU_DAYS)
    counted = [np.bincount(code[row], counts, minlength=size) for code, size in zip(codes.T, sizes, strict=True)]
    return np.concatenate([np.maximum(sums / max(sums.sum(), 1e-9), _LEAST_SHARE) for sums in counted]).astype(np.float32)
