"""How good a bundle is on the days after its cut: the recommender that serves, asked for every user, beside popularity and the champion.

`metrics.json` holds what the same inputs always give; times are apart, in `latency.json`.
Shapes: U users with a target, I items of the catalogue, L list length.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluation.batch import HARD_RULES, BatchResult, Question, ask, open_recommender
from components.evaluation.compare import CANDIDATE, CHAMPION, POPULARITY, Known, Numbers, compare, popular, sliced, variety
from components.evaluation.metrics import NOTHING, Lists, Target
from components.evaluation.slices import COLD_BASKETS
from components.evaluation.truth import Truth, new_target, read_truth
from serving.bundle.arrays import BadFolder
from serving.bundle.bundle import BadBundle, show
from serving.bundle.catalogue import Catalogue
from serving.ranking.rankers import BadModels
from serving.system import System

LIST = 1000  # quality.md: lists are cut here
COLD_USERS = 200  # asked again as if new, spread evenly over all by id
SHARE_OF_HISTORY = "user_baskets_all"  # log1p of baskets before the cut, feature_repo/names.py
FLAG_OF_RULE = {"in_stock": "out_of_stock", "not_recalled": "recalled"}


def evaluate(
    system: System, bundle: Path, features: Path, out: Path, champion: Path | None = None, advance: Callable[[int, int], None] | None = None
) -> None:
    """Write `out/metrics.json`, `latency.json` and `lists.parquet`. `champion`: the bundle folder now released, judged on the same cut.

    `advance` is told users done and users in all. Raises `ValueError` when the days after the cut hold no events.
    """
    truth = read_truth(features)
    champion, unreadable = _readable(system, champion)
    questions = _questions(truth, system.answer_size)
    done = _Counter(sum(len(q.users) for q in questions) + (2 * len(truth.users) if champion else 0), advance)
    told = dict(zip(("all", "new", "answer", *_cold_names()), ask(system, bundle, truth.folder / "users", questions, done), strict=True))
    lists = {protocol: {CANDIDATE: told[protocol].rows} for protocol in ("all", "new")}
    known = Known.of(truth.states, truth.catalogue)
    lists["all"][POPULARITY] = popular(known, LIST, [rows[:0] for rows in truth.had])
    lists["new"][POPULARITY] = popular(known, LIST, truth.had)
    if champion:
        for protocol, answer in zip(("all", "new"), ask(system, champion, truth.folder / "users", questions[:2], done), strict=True):
            lists[protocol][CHAMPION] = _translated(answer.rows, champion, truth.catalogue)
    numbers = _numbers(system, truth, known, told, lists)
    numbers |= {
        "bundle": show(bundle)["digest"],
        "champion": show(champion)["digest"] if champion else None,
        "champion_unreadable": unreadable,
        "bundle_bytes": _bytes(bundle),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")
    (out / "latency.json").write_text(json.dumps(_latency(told["answer"]), indent=1, sort_keys=True) + "\n")
    _write_lists(truth, {protocol: told[protocol].rows for protocol in ("all", "new")}, out / "lists.parquet")


def _readable(system: System, champion: Path | None) -> tuple[Path | None, str | None]:
    """The champion, or why this code cannot ask it: one learnt under other features is not comparable, and must not stop its successor."""
    if champion is not None:
        try:
            open_recommender(system, champion)
        except (BadBundle, BadFolder, BadModels) as problem:
            return None, str(problem)
    return champion, None


def _cold_names() -> list[str]:
    return [f"{baskets} baskets known" for baskets in COLD_BASKETS]


def _cold_users(users: NDArray[np.int64]) -> NDArray[np.intp]:
    """Positions of the users asked again as newcomers."""
    return np.unique(np.linspace(0, len(users) - 1, min(COLD_USERS, len(users))).astype(np.intp))


def _questions(truth: Truth, answer: int) -> list[Question]:
    length = min(LIST, len(truth.catalogue))
    some = truth.users[_cold_users(truth.users)]
    return [
        Question(truth.users, length),
        Question(truth.users, length, discover=True),
        Question(truth.users, answer, all_rules=True),
        *(Question(some, length, baskets=baskets) for baskets in COLD_BASKETS),
    ]


def _numbers(system: System, truth: Truth, known: Known, told: dict[str, BatchResult], lists: dict[str, dict[str, Lists]]) -> Numbers:
    """Everything in metrics.json but the bundles' names."""
    targets = {"all": truth.target, "new": new_target(truth)}
    column = truth.states.feature_names.index(SHARE_OF_HISTORY)
    baskets = np.expm1(np.asarray(truth.states.features)[truth.users, column].astype(np.float64))
    protocols = {protocol: compare(lists[protocol], target) for protocol, target in targets.items()}
    slices: dict[str, dict[str, Numbers]] = {}
    for protocol, target in targets.items():
        for name, found in sliced(lists[protocol], target, baskets.round(), known, truth.states.cut_day).items():
            slices.setdefault(name, {})[protocol] = found
    return {
        "system": system.name,
        "cut": truth.cut,
        "judged_days": system.learning.horizon_days,
        "users_with_target": len(truth.users),
        "plan_used": "promotions planned up to the judged week, as known at the cut",
        "protocols": protocols,
        "slices": slices,
        "cold": _cold(truth, told, lists["all"][POPULARITY]),
        "cold_users": f"{len(_cold_users(truth.users))} of {len(truth.users)} users, spread evenly by id",
        "answer": _answer(system, truth, told["answer"].rows),
        "variety": {name: variety(rows, truth.catalogue, known, 10) for name, rows in lists["all"].items()},
    }


def _cold(truth: Truth, told: dict[str, BatchResult], popular_lists: Lists) -> dict[str, Numbers]:
    """The same users as if only their last baskets were known, judged on everything they had in the judged days."""
    at = _cold_users(truth.users)
    place = np.full(truth.target.count, -1)
    place[at] = np.arange(len(at))
    mine = place[truth.target.users] >= 0
    target = Target(place[truth.target.users[mine]], truth.target.items[mine], len(at))
    return {name: {"all": compare({CANDIDATE: told[name].rows, POPULARITY: popular_lists[at]}, target)} for name in _cold_names()}


def _answer(system: System, truth: Truth, rows: Lists) -> Numbers:
    """What a user would see: k items under every rule."""
    k = system.answer_size
    found = compare({CANDIDATE: rows}, truth.target)["recommenders"][CANDIDATE]
    there = rows != NOTHING
    barred = np.zeros(len(truth.catalogue), bool)
    for rule in system.rules:
        if rule.kind in HARD_RULES:
            barred |= truth.catalogue.flagged(FLAG_OF_RULE.get(rule.kind) or str(rule.settings["flag"]))
    return {
        "k": k,
        "metrics": {metric: found[metric] for metric in ("ndcg@10", "recall@10", "hit_rate@10", "mrr")},
        "empty": int((~there.any(axis=1)).sum()),
        "short": int((there.sum(axis=1) < k).sum()),
        "forbidden": int((barred[np.maximum(rows, 0)] & there).sum()),
    }


def _translated(rows: Lists, bundle: Path, catalogue: Catalogue) -> Lists:
    """Rows of another bundle's item table as rows of this catalogue; an item it lacks becomes a row past its end."""
    other = Catalogue.load(bundle / "item_table")
    mine = catalogue.rows_of_keys(np.asarray(other.keys))  # (I of the other,)
    mine = np.where(mine < 0, len(catalogue) + np.arange(len(mine)), mine).astype(np.int32)
    return np.where(rows == NOTHING, NOTHING, mine[np.maximum(rows, 0)])


def _latency(told: BatchResult) -> dict[str, Any]:
    """Milliseconds of an answer, without the server and the online read. From one process a core: noisy, never part of a digest."""
    return {
        "requests": len(told.rows),
        **{
            f"{kind}_ms_p{q}": round(float(np.percentile(values, q)), 3)
            for kind, values in (("cpu", told.cpu_ms), ("wall", told.wall_ms))
            for q in (50, 99)
        },
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write_lists(truth: Truth, lists: dict[str, Lists], path: Path) -> None:
    """Every judged list: protocol, user_id, rank (1-based), item_id."""
    import pyarrow as pa
    import pyarrow.parquet

    items = pa.array([text.decode() for text in truth.catalogue.item_ids.tolist()])
    users = pa.array([bytes(truth.states.user_ids[index]).decode() for index in truth.users.tolist()])
    tables = []
    for protocol, rows in lists.items():
        user, rank = np.nonzero(rows != NOTHING)
        columns = {
            "protocol": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(user), np.int32)), pa.array([protocol])),
            "user_id": pa.DictionaryArray.from_arrays(pa.array(user.astype(np.int32)), users),
            "rank": pa.array((rank + 1).astype(np.int32)),
            "item_id": pa.DictionaryArray.from_arrays(pa.array(rows[user, rank].astype(np.int32)), items),
        }
        tables.append(pa.table(columns))
    pyarrow.parquet.write_table(pa.concat_tables(tables).unify_dictionaries(), path, compression="zstd")


class _Counter:
    """Users done so far, passed on."""

    def __init__(self, total: int, advance: Callable[[int, int], None] | None) -> None:
        self.done, self.total, self._advance = 0, total, advance

    def __call__(self, more: int) -> None:
        self.done += more
        if self._advance:
            self._advance(self.done, self.total)
