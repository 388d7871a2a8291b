"""Recommenders that know nothing worth knowing: what every candidate has to beat, and what no gate may let through.

Each is asked on the given data for the same users, under the same rules as the candidate. Popularity and its kin are also rivals, so that a
candidate is never measured against the weakest of them: where most of a basket is bought again, popularity in one's own categories is far
ahead of popularity. Shapes: U users with a target, I items, K list length.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from components.evaluation import metrics
from components.evaluation.compare import POPULARITY, Known, Numbers, as_numbers, popular, scores
from components.evaluation.metrics import NOTHING, Lists, Mean, Target
from components.evaluation.truth import Truth, entries_of

LESS_HAD, RANDOM = "popularity less had", "random"
IN_CATEGORY = ("popular in department", "popular in category", "popular in type")  # by level of the category path
K = 10  # as far as the deciding metric looks where an answer has ten
_NUMBERS = 1 << 23  # users x items at once: 64 MB
_DRAWN_FROM, _TOGETHER = 5000, 100  # items, more than a history holds, drawn anew for so many users at a time


def impostors(truth: Truth, known: Known, barred: NDArray[np.bool_], *, new_only: bool, k: int = K) -> dict[str, Lists]:
    """The lists (U, K) of each impostor; `new_only`: what a user has had is taken out of all of them."""
    out = truth.out if new_only else truth.nothing
    found = {POPULARITY: popular(known, k, out, barred), LESS_HAD: popular(known, k, truth.had, barred)}
    for level, name in enumerate(IN_CATEGORY):
        found[name] = popular_in_category(truth, known, barred, out, level, k)
    found[RANDOM] = at_random(truth, barred, out, k=k)
    return found


def popular_in_category(truth: Truth, known: Known, barred: NDArray[np.bool_], without: Target, level: int, k: int = K) -> Lists:
    """Popular items, those of the categories the user had most of first: share of the user's history x users of the last 28 days. (U, K)"""
    sold = np.flatnonzero((known.lately > 0) & ~barred)  # (A,)
    category = np.asarray(truth.catalogue.category)[:, level]
    lists, codes = np.full((without.count, k), NOTHING, np.int32), int(category.max(initial=0)) + 1
    for users in _blocks(without.count, _NUMBERS // max(len(sold), codes)):
        share = _shares(truth, users, category, codes)
        worth = known.lately[sold] * (share[:, category[sold]] + 1e-9)  # (b, A) nobody's category: by popularity alone
        _take_out(worth, without, users, sold)
        lists[users] = _best(worth, sold, k)
    return lists


def _blocks(users: int, size: int) -> list[NDArray[np.intp]]:
    """Users 0 .. U-1 in stretches of about `size`, at least one each."""
    return np.array_split(np.arange(users), max(1, -(-users // max(size, 1))))


def _shares(truth: Truth, users: NDArray[np.intp], category: NDArray[np.int32], codes: int) -> NDArray[np.float64]:
    """(b, codes) of what each of these users had, as often as it was had, the share of each category."""
    owner, entries = entries_of(truth.states.ends, truth.users[users])
    rows = truth.catalogue.rows_of_keys(np.asarray(truth.states.keys)[entries])
    had, counts = rows >= 0, np.asarray(truth.states.counts)[entries]
    sums = np.bincount(owner[had] * codes + category[rows[had]], counts[had], minlength=len(users) * codes).reshape(len(users), codes)
    return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1.0)


def _take_out(worth: NDArray[np.float64], without: Target, users: NDArray[np.intp], items: NDArray[np.integer]) -> None:
    """In `worth` (b, A) of a stretch of users and ascending items, what they are without is worth -1."""
    own = (without.users >= users[0]) & (without.users <= users[-1]) if len(users) else np.zeros(len(without.users), bool)
    user, wanted = without.users[own] - users[:1], without.items[own]
    place = np.searchsorted(items, wanted)
    there = np.append(items, -1)[place] == wanted
    worth[user[there], place[there]] = -1.0


def _best(worth: NDArray[np.float64], items: NDArray[np.integer], k: int) -> Lists:
    """(b, K) for each row of (b, A) the items of greatest worth that is not below 0; of equal ones the first."""
    lists = np.full((len(worth), k), NOTHING, np.int32)
    if not worth.size:
        return lists
    count = min(k, worth.shape[1])
    least = np.maximum(np.partition(worth, -count, axis=1)[:, -count], 0.0)
    user, at = np.nonzero(worth >= least[:, None])
    order = np.lexsort((at, -worth[user, at], user))
    user, at = user[order], at[order]
    rank = np.arange(len(user)) - np.searchsorted(user, user)
    lists[user[rank < k], rank[rank < k]] = items[at[rank < k]]
    return lists


def at_random(truth: Truth, barred: NDArray[np.bool_], without: Target, seed: int = 0, k: int = K) -> Lists:
    """Items drawn alike, for each user anew. (U, K)"""
    random = np.random.default_rng(seed)
    open_items, lists = np.flatnonzero(~barred), np.full((without.count, k), NOTHING, np.int32)
    for users in _blocks(without.count, _TOGETHER):
        some = np.sort(random.choice(open_items, min(len(open_items), _DRAWN_FROM), replace=False))
        worth = random.random((len(users), len(some)))  # the K greatest are K drawn alike
        _take_out(worth, without, users, some)
        lists[users] = _best(worth, some, k)
    return lists


def judged(candidate: Lists, asked: Mapping[str, Lists], target: Target, measure: str = "ndcg@10") -> Numbers:
    """The measure of each impostor, what the candidate is ahead of it, and what it is itself ahead of each rival."""
    users, k = np.flatnonzero(target.sizes), int(measure.partition("@")[2])
    if len(users) < 2:
        return {"users": len(users)}
    worth = {name: scores(lists, target, k)[measure][users] for name, lists in asked.items()}
    ours, drawn = scores(candidate, target, k)[measure][users], target.strata.only(users) if target.strata else None
    rivals = [name for name in worth if name != RANDOM]
    return {
        "users": len(users),
        "values": {name: as_numbers(Mean.of(values, drawn)) for name, values in worth.items()},
        "candidate": as_numbers(Mean.of(ours, drawn)),
        "candidate_against": {name: as_numbers(metrics.paired(ours, worth[name], drawn)) for name in rivals},
        "asked": {
            name: {rival: as_numbers(metrics.paired(values, worth[rival], drawn)) for rival in rivals} for name, values in worth.items()
        },
    }
