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
from components.evaluation.metrics import NOTHING, Lists, Mean
from components.evaluation.truth import Truth

LESS_HAD, RANDOM = "popularity less had", "random"
IN_CATEGORY = ("popular in department", "popular in category", "popular in type")  # by level of the category path
K = 10  # as far as the deciding metric looks where an answer has ten


def impostors(truth: Truth, known: Known, barred: NDArray[np.bool_], *, new_only: bool, k: int = K) -> dict[str, Lists]:
    """The lists (U, K) of each impostor; `new_only`: what a user has had is taken out of all of them."""
    nothing = [rows[:0] for rows in truth.had]
    out = truth.out if new_only else nothing
    found = {POPULARITY: popular(known, k, out, barred), LESS_HAD: popular(known, k, truth.had, barred)}
    for level, name in enumerate(IN_CATEGORY):
        found[name] = popular_in_category(truth, known, barred, out, level, k)
    found[RANDOM] = at_random(truth, barred, out, k=k)
    return found


def popular_in_category(
    truth: Truth, known: Known, barred: NDArray[np.bool_], without: list[NDArray[np.int32]], level: int, k: int = K
) -> Lists:
    """Popular items, those of the categories the user had most of first: share of the user's history x users of the last 28 days. (U, K)"""
    sold = np.flatnonzero((known.lately > 0) & ~barred).astype(np.int32)
    category = np.asarray(truth.catalogue.category)[:, level]
    codes = int(category.max(initial=0)) + 1
    lists = np.full((len(truth.users), k), NOTHING, np.int32)
    for user, index in enumerate(truth.users.tolist()):
        state = truth.states[index]
        rows = truth.catalogue.rows_of_keys(state.keys)
        had = rows >= 0
        share = np.bincount(category[rows[had]], weights=state.counts[had], minlength=codes) / max(float(state.counts[had].sum()), 1.0)
        items = sold[~np.isin(sold, without[user])]
        worth = known.lately[items] * (share[category[items]] + 1e-9)  # nobody's category: by popularity alone
        best = items[np.argsort(-worth, kind="stable")[:k]]
        lists[user, : len(best)] = best
    return lists


def at_random(truth: Truth, barred: NDArray[np.bool_], without: list[NDArray[np.int32]], seed: int = 0, k: int = K) -> Lists:
    """Items drawn alike, for each user anew. (U, K)"""
    random = np.random.default_rng(seed)
    open_items = np.flatnonzero(~barred).astype(np.int32)
    lists = np.full((len(truth.users), k), NOTHING, np.int32)
    for user, rows in enumerate(without):
        drawn = random.choice(open_items, min(len(open_items), k + len(rows)), replace=False)
        kept = drawn[~np.isin(drawn, rows)][:k]
        lists[user, : len(kept)] = kept
    return lists


def judged(candidate: Lists, asked: Mapping[str, Lists], target: metrics.Target, measure: str = "ndcg@10") -> Numbers:
    """The measure of each impostor, what the candidate is ahead of it, and what it is itself ahead of each rival."""
    users, k = np.flatnonzero(target.sizes), int(measure.partition("@")[2])
    if len(users) < 2:
        return {"users": len(users)}
    worth = {name: scores(lists, target, k)[measure][users] for name, lists in asked.items()}
    ours = scores(candidate, target, k)[measure][users]
    rivals = [name for name in worth if name != RANDOM]
    return {
        "users": len(users),
        "values": {name: as_numbers(Mean.of(values)) for name, values in worth.items()},
        "candidate": as_numbers(Mean.of(ours)),
        "candidate_against": {name: as_numbers(metrics.paired(ours, worth[name])) for name in rivals},
        "asked": {name: {rival: as_numbers(metrics.paired(values, worth[rival])) for rival in rivals} for name, values in worth.items()},
    }
