"""From lists and the truth to the numbers of `metrics.json`: every recommender alone, and each pair of them on the same users.

Shapes: U judged users, L longest list, I items of the catalogue, K list cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluation import metrics
from components.evaluation.metrics import Lists, Mean, PerUser, Strata, Target
from components.evaluation.orders import Orders
from components.evaluation.slices import by_baskets, by_item_age
from serving.bundle.catalogue import Catalogue
from serving.state.user_state import StateTable

CUTS = (10, 100, 1000)
CANDIDATE, POPULARITY, CHAMPION = "candidate", "popularity", "champion"
Scores = Mapping[str, PerUser]  # metric -> (U,)
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """What the days before the cut say of items, counted from the users' states."""

    buyers: NDArray[np.float64]  # (I,) users who had the item
    lately: NDArray[np.float64]  # (I,) of them, who had it last within the 28 days before the cut
    first_day: NDArray[np.float64]  # (I,) first sold; NaN: never
    users: int

    @classmethod
    def of(cls, states: StateTable, catalogue: Catalogue, days: float = 28) -> "Known":
        rows = catalogue.rows_of_keys(np.asarray(states.keys))
        there = rows >= 0
        lately = there & (np.asarray(states.last_day) >= states.cut_day - days)
        first = np.full(len(catalogue), np.inf)
        np.minimum.at(first, rows[there], np.asarray(states.first_day)[there])
        buyers, late = (np.bincount(rows[which], minlength=len(catalogue)).astype(np.float64) for which in (there, lately))
        return cls(buyers, late, np.where(np.isinf(first), np.nan, first), len(states))


def popular(known: Known, length: int, without: Target, barred: NDArray[np.bool_]) -> Lists:
    """The baseline: items by users of the last 28 days, the same for everybody but for what each user's `without` takes out. (U, length)

    `barred` (I,) are in nobody's list: what no answer may hold, no rival may score with.
    """
    order = np.argsort(-known.lately, kind="stable")
    order = order[(known.lately[order] > 0) & ~barred[order]]
    return Orders(order, np.array([len(order)])).without(np.zeros(without.count, np.int64), without, length)


def scores(lists: Lists, target: Target, answer: int = 10) -> Scores:
    """Every metric of every user; of NDCG at `answer` places, too."""
    hit, sizes = metrics.hits(lists, target), target.sizes
    found: dict[str, PerUser] = {}
    for k in CUTS:
        found[f"recall@{k}"] = metrics.recall(hit, sizes, k)
        found[f"ndcg@{k}"] = metrics.ndcg(hit, sizes, k)
    found[f"ndcg@{answer}"] = metrics.ndcg(hit, sizes, answer)
    found["recall@20"] = metrics.recall(hit, sizes, 20)
    found["hit_rate@10"] = metrics.hit_rate(hit, 10)
    found["mrr"] = metrics.reciprocal_rank(hit)
    found["mrr@20"] = metrics.reciprocal_rank(hit[:, :20])
    return found


def compare(lists: Mapping[str, Lists], target: Target, answer: int = 10) -> Numbers:
    """Means of every recommender over the users with a target, and what the candidate is ahead of each other one."""
    judged = np.flatnonzero(target.sizes)
    if not len(judged):
        return {"users": 0, "recommenders": {}, "against": {}}
    by_name = {name: {metric: values[judged] for metric, values in scores(rows, target, answer).items()} for name, rows in lists.items()}
    ours, drawn = by_name[CANDIDATE], target.strata.only(judged) if target.strata else None
    return {
        "users": len(judged),
        "targets": len(target.users),
        "recommenders": {
            name: {metric: as_numbers(Mean.of(values, drawn)) for metric, values in found.items()} for name, found in by_name.items()
        },
        "against": {
            name: {metric: as_numbers(metrics.paired(ours[metric], values, drawn)) for metric, values in found.items()}
            for name, found in by_name.items()
            if name != CANDIDATE
        },
    }


def sliced(
    lists: Mapping[str, Lists], target: Target, baskets: PerUser, known: Known, cut_day: float, answer: int = 10
) -> dict[str, Numbers]:
    """`compare` for users by what is known of them, and for the part of the target that is new or was never sold."""
    found = {name: compare(lists, target.only(mask[target.users]), answer) for name, mask in by_baskets(baskets).items()}
    for name, mask in by_item_age(known.first_day, cut_day).items():
        in_catalogue = target.items < len(mask)
        found[name] = compare(lists, target.only(in_catalogue & mask[np.where(in_catalogue, target.items, 0)]), answer)
    return found


def variety(lists: Lists, catalogue: Catalogue, known: Known, k: int, strata: Strata | None = None) -> Numbers:
    """What the first K are like, whether or not they hit."""
    labels = {"category": np.asarray(catalogue.category)[:, 1], "brand": np.asarray(catalogue.brand)}
    return {
        f"coverage@{k}": metrics.coverage(lists, k, len(catalogue)),
        **(
            {
                f"novelty_bits@{k}": as_numbers(Mean.of(metrics.novelty(lists, k, known.buyers, known.users), strata)),
                **{
                    f"{name}_diversity@{k}": as_numbers(Mean.of(metrics.diversity(lists, k, label), strata))
                    for name, label in labels.items()
                },
            }
            if len(lists)
            else {}
        ),
    }


def as_numbers(mean: Mean) -> Numbers:
    """Rounded to a millionth, so that the last bits of a sum never change a file."""
    return {"value": round(mean.value, 6), "error": round(mean.error, 6) if np.isfinite(mean.error) else None}
