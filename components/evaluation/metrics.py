"""How good lists are: one number a user for each metric, means with their errors, and differences between two recommenders.

A user without a list counts as all misses: an empty row of `lists` scores zero, it is not left out.
Shapes: U users who are judged, L longest list, K list cut, I items of the catalogue, N (user, item) pairs of the target.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = -1  # what fills a list that ends early
Lists = NDArray[np.int32]  # (U, L) item rows, best first, NOTHING after the end
PerUser = NDArray[np.float64]  # (U,)


@dataclass(frozen=True)
class Strata:
    """Whom the judged users stand for, where they were drawn: some of every stratum. H strata."""

    of: NDArray[np.int64]  # (U,) stratum of each judged user
    sizes: NDArray[np.int64]  # (H,) users in all
    drawn: NDArray[np.int64]  # (H,) of them

    def only(self, which: NDArray[Any]) -> "Strata":
        """Of some of the users, who were drawn from as many as ever."""
        return Strata(self.of[which], self.sizes, self.drawn)


@dataclass(frozen=True)
class Target:
    """What each user truly had in the judged days: N distinct (user, item) pairs."""

    users: NDArray[np.int64]  # (N,) 0 .. U-1, row of `lists`
    items: NDArray[np.int64]  # (N,) item row; an item the catalogue lacks keeps a number no list holds
    count: int  # U
    strata: Strata | None = None  # of the U users, where they are a sample

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(U,) target items of each user."""
        return np.bincount(self.users, minlength=self.count)

    def only(self, which: NDArray[np.bool_]) -> "Target":
        """The target of the same users with only the pairs that `which` (N,) keeps; some users may be left with none."""
        return Target(self.users[which], self.items[which], self.count, self.strata)

    def without(self, other: "Target") -> "Target":
        """The pairs that `other`, of the same users, does not have."""
        width = int(max(self.items.max(initial=0), other.items.max(initial=0))) + 1
        return self.only(~np.isin(self.users * width + self.items, other.users * width + other.items))

    def of_users(self, which: NDArray[np.intp]) -> "Target":
        """The pairs of some users (V,), ascending, who become 0 .. V-1."""
        place = np.full(self.count, -1)
        place[which] = np.arange(len(which))
        kept = place[self.users] >= 0
        strata = self.strata.only(which) if self.strata else None
        return Target(place[self.users[kept]], self.items[kept], len(which), strata)


@dataclass(frozen=True)
class Mean:
    """A mean over users and its standard error."""

    value: float
    error: float
    users: int

    @classmethod
    def of(cls, values: PerUser, strata: Strata | None = None) -> "Mean":
        """Of these users, or of all whom they stand for. Raises `ValueError` for no users: there is no mean to invent."""
        if not len(values):
            raise ValueError("a mean over no users: check that the judged days hold events of known users")
        if strata is not None and len(values) > 1:
            return cls(*_of_drawn(values, strata), len(values))
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")
        return cls(float(values.mean()), error, len(values))


def _of_drawn(values: PerUser, strata: Strata) -> tuple[float, float]:
    """The mean over all users behind a stratified sample, and its error, in two parts (Cochran 1977, Sampling Techniques, ch. 5 and 5A).

    All users are themselves a sample of whom may come: their variance over their number. Of each stratum some were drawn: the variance
    within it over the drawn, less the share that was drawn; of values for some of the drawn alone (a slice) others count as on the mean.
    Where all were drawn the second part is nothing, and the error the plain one.
    """
    weight = (strata.sizes / np.maximum(strata.drawn, 1))[strata.of]  # (U,)
    total = float(weight.sum())  # users in all
    mean = float((weight * values).sum() / total)
    sums, squares = (np.bincount(strata.of, (values - mean) ** power, minlength=len(strata.sizes)) for power in (1, 2))
    within = np.maximum(squares - sums**2 / np.maximum(strata.drawn, 1), 0) / np.maximum(strata.drawn - 1, 1)  # (H,)
    by_draw = float((strata.sizes * (strata.sizes - strata.drawn) * within / np.maximum(strata.drawn, 1)).sum()) / total**2
    by_chance = float((weight * (values - mean) ** 2).sum() / max(total - 1, 1) / total)
    return mean, float(np.sqrt(by_draw + by_chance))


def hits(lists: Lists, target: Target) -> NDArray[np.bool_]:
    """(U, L) which list entries are in the user's target."""
    width = int(max(lists.max(initial=0), target.items.max(initial=0))) + 2
    wanted = np.sort(target.users * width + target.items + 1)  # (N,) one number a pair
    if not len(wanted):
        return np.zeros(lists.shape, bool)
    listed = np.arange(len(lists), dtype=np.int64)[:, None] * width + lists + 1  # (U, L)
    found = np.minimum(np.searchsorted(wanted, listed), len(wanted) - 1)
    there: NDArray[np.bool_] = (wanted[found] == listed) & (lists != NOTHING)
    return there


def recall(hit: NDArray[np.bool_], sizes: NDArray[np.int64], k: int) -> PerUser:
    """Recall@K: target items within the first K, over the size of the target. (U,)"""
    shares: PerUser = hit[:, :k].sum(axis=1) / np.maximum(sizes, 1)
    return shares


def ndcg(hit: NDArray[np.bool_], sizes: NDArray[np.int64], k: int) -> PerUser:
    """NDCG@K (Järvelin and Kekäläinen 2002) with binary gains, log2 discount, and min(K, |target|) hits as the ideal. (U,)"""
    discount = 1 / np.log2(np.arange(2, k + 2))  # (K,)
    gained = hit[:, :k] @ discount[: hit.shape[1]]  # (U,)
    ideal = np.concatenate(([1.0], np.cumsum(discount)))[np.minimum(sizes, k)]  # 1 for an empty target: 0 / 1
    shares: PerUser = (gained / ideal).astype(np.float64)
    return shares


def hit_rate(hit: NDArray[np.bool_], k: int) -> PerUser:
    """HR@K: whether the first K hold any target item. (U,)"""
    return np.asarray(hit[:, :k].any(axis=1), np.float64)


def reciprocal_rank(hit: NDArray[np.bool_]) -> PerUser:
    """One over the 1-based rank of the first hit in the whole list, 0 without one; its mean is MRR. (U,)"""
    first = hit.argmax(axis=1)
    shares: PerUser = hit.any(axis=1) / (first + 1.0)
    return shares


def coverage(lists: Lists, k: int, items: int) -> float:
    """Share of the catalogue's `items` that stand in anybody's first K."""
    shown = np.unique(lists[:, :k])
    return float((shown != NOTHING).sum() / max(items, 1))


def diversity(lists: Lists, k: int, label: NDArray[np.int32]) -> PerUser:
    """Intra-list distance: share of the pairs in the first K whose `label` (I,), a category or a brand, differs. (U,)

    Counted by groups: of n(n-1)/2 pairs, those within a group of g alike are g(g-1)/2. Lists of fewer than two have no pair and score 0.
    """
    top = lists[:, :k]
    there = top != NOTHING
    labels = np.where(there, label[np.maximum(top, 0)].astype(np.int64), -1 - np.arange(top.shape[1]))  # blanks all differ
    ordered = np.sort(labels, axis=1)  # (U, K)
    new_group = np.ones(ordered.shape, bool)
    new_group[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(new_group, np.arange(ordered.shape[1]), 0), axis=1)
    alike = (np.arange(ordered.shape[1]) - begin).sum(axis=1)  # the j-th of a group pairs with j earlier ones
    length = there.sum(axis=1)
    pairs = length * (length - 1) / 2
    return np.asarray(np.where(pairs > 0, 1 - alike / np.maximum(pairs, 1), 0.0))


def novelty(lists: Lists, k: int, buyers: NDArray[np.float64], users: int) -> PerUser:
    """Mean surprise -log2 p of the first K (Zhou et al. 2010), p the share of `users` who had the item. (U,)

    One more buyer is assumed of every item, so that an item nobody had has a finite surprise.
    """
    surprise = -np.log2((buyers + 1.0) / (users + 1.0))  # (I,)
    there = lists[:, :k] != NOTHING
    total = np.where(there, surprise[np.maximum(lists[:, :k], 0)], 0.0).sum(axis=1)
    means: PerUser = total / np.maximum(there.sum(axis=1), 1)
    return means


def paired(ours: PerUser, theirs: PerUser, strata: Strata | None = None) -> Mean:
    """Mean difference ours - theirs over the same users in the same order. Its error is what decides, not the two errors apart."""
    if len(ours) != len(theirs):
        raise ValueError(f"expected the same users on both sides, got {len(ours)} and {len(theirs)}: judge both on one cut")
    return Mean.of(ours - theirs, strata)
