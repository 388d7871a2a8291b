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

from components.evaluation.batch import BatchResult, Question, ask, open_recommender
from components.evaluation.compare import CANDIDATE, CHAMPION, POPULARITY, Known, Numbers, compare, popular, sliced, variety
from components.evaluation.impostors import impostors, judged
from components.evaluation.metrics import NOTHING, Lists, Target
from components.evaluation.next_item import TOGETHER, had_together
from components.evaluation.reliability import reliability
from components.evaluation.slices import COLD_BASKETS, baskets_of, made_cold
from components.evaluation.truth import Truth, judged_days, new_target, read_later, read_truth
from components.evaluation.visible import ALL, NEW, barred_items, deciding_protocol, measures, protocols, without_barred
from serving.bundle.arrays import BadFolder
from serving.bundle.bundle import BadBundle, show
from serving.bundle.catalogue import Catalogue
from serving.ranking.rankers import BadModels
from serving.state.user_state import UserState
from serving.system import System

LIST = 1000  # lists are cut here: a pool, the depth of recall@1000
COLD_USERS = 200  # asked again as if new, spread evenly over all by id


def evaluate(
    system: System, bundle: Path, features: Path, out: Path, champion: Path | None = None, advance: Callable[[int, int], None] | None = None
) -> None:
    """Write `out/metrics.json`, `latency.json` and `lists.parquet`. `champion`: the bundle folder now released, judged on the same cut.

    `advance` is told users done and users in all. Raises `ValueError` when the days after the cut hold no events.
    """
    truth = read_truth(features)
    barred = barred_items(system, truth.catalogue)
    champion, unreadable = _readable(system, champion)
    questions = _questions(system, truth)
    done = _Counter(sum(len(q.users) for q in questions) + (2 * len(truth.users) if champion else 0), advance)
    told = dict(zip((ALL, NEW, "answer", *_cold_names()), ask(system, bundle, truth.asked, questions, done), strict=True))
    lists = {protocol: {CANDIDATE: told[protocol].rows} for protocol in (ALL, NEW)}
    known = Known.of(truth.known, truth.catalogue)
    lists[ALL][POPULARITY] = popular(known, LIST, truth.nothing, barred)
    lists[NEW][POPULARITY] = popular(known, LIST, truth.out, barred)
    for protocol, rows in _together(system, truth, barred).items():
        lists[protocol][TOGETHER] = rows
    if champion:
        for protocol, answer in zip((ALL, NEW), ask(system, champion, truth.asked, questions[:2], done), strict=True):
            lists[protocol][CHAMPION] = without_barred(_translated(answer.rows, champion, truth.catalogue), barred)
    weeks, quiet = read_later(features)
    numbers = _numbers(system, truth, known, told, lists, barred)
    numbers |= {
        "reliability": reliability(system, bundle, truth),
        "judged_days": judged_days(features),
        "users_judged": {"asked": len(truth.users), "of": truth.of},
        "weeks": {later.cut: _later_week(system, bundle, champion, later) for later in weeks},
        "quiet_weeks": quiet,
        "bundle": show(bundle)["digest"],
        "champion": show(champion)["digest"] if champion else None,
        "champion_unreadable": unreadable,
        "bundle_bytes": bytes_of(bundle),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")
    (out / "latency.json").write_text(json.dumps(latency(told["answer"]), indent=1, sort_keys=True) + "\n")
    _write_lists(truth, {protocol: told[protocol].rows for protocol in (ALL, NEW)}, out / "lists.parquet")


def _together(system: System, truth: Truth, barred: NDArray[np.bool_]) -> dict[str, Lists]:
    """By protocol the lists of the rival that knows a session's newest item; nothing where users are asked."""
    if system.learning.asked == "users":
        return {}
    length = min(LIST, len(truth.catalogue))
    return {protocol: had_together(truth, length, barred, out) for protocol, out in ((ALL, truth.nothing), (NEW, truth.out))}


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


def _questions(system: System, truth: Truth) -> list[Question]:
    length = min(LIST, len(truth.catalogue))
    some, discover = truth.users[_cold_users(truth.users)], deciding_protocol(system) == NEW
    return [
        Question(truth.users, length),
        Question(truth.users, length, discover=True),
        Question(truth.users, system.answer_size, all_rules=True),
        *(Question(some, length, discover=discover, baskets=baskets) for baskets in COLD_BASKETS),
    ]


def _numbers(
    system: System,
    truth: Truth,
    known: Known,
    told: dict[str, BatchResult],
    lists: dict[str, dict[str, Lists]],
    barred: NDArray[np.bool_],
) -> Numbers:
    """Everything in metrics.json but the bundles' names."""
    targets, deciding = targets_of(truth, barred), deciding_protocol(system)
    baskets = baskets_of(truth.states)[truth.users]
    slices: dict[str, dict[str, Numbers]] = {}
    for protocol in protocols(system):
        for name, found in sliced(lists[protocol], targets[protocol], baskets, known, truth.states.cut_day, system.answer_size).items():
            slices.setdefault(name, {})[protocol] = found
    measure = measures(system)[0]
    asked = impostors(truth, known, barred, new_only=deciding == NEW, k=int(measure.partition("@")[2]))
    return {
        "system": system.name,
        "cut": truth.cut,
        "users_with_target": int(np.count_nonzero(targets[ALL].sizes)),
        "plan_used": "promotions planned up to the judged week, as known at the cut",
        "deciding": deciding,
        "measures": list(measures(system)),
        "barred_items": int(barred.sum()),
        "protocols": {protocol: compare(lists[protocol], target, system.answer_size) for protocol, target in targets.items()},
        "impostors": judged(told[deciding].rows, asked, targets[deciding], measure),
        "slices": slices,
        "cold": _cold(system, truth, told, known, targets[deciding], barred),
        "cold_users": f"{len(_cold_users(truth.users))} of {len(truth.users)} users, spread evenly by id",
        "answer": _answer(system, truth, told["answer"].rows, targets[deciding], barred),
        "variety": {name: variety(rows, truth.catalogue, known, 10, truth.target.strata) for name, rows in lists[ALL].items()},
    }


def _later_week(system: System, bundle: Path, champion: Path | None, truth: Truth) -> Numbers:
    """The guarded protocols of a later week: the same bundles, asked with what was known of the users by then."""
    barred, known, length = barred_items(system, truth.catalogue), Known.of(truth.known, truth.catalogue), min(LIST, len(truth.catalogue))
    asked = [Question(truth.users, length, discover=protocol == NEW) for protocol in protocols(system)]
    ours = ask(system, bundle, truth.asked, asked)
    theirs = ask(system, champion, truth.asked, asked) if champion else []
    found, together = {}, _together(system, truth, barred)
    for place, protocol in enumerate(protocols(system)):
        out = truth.out if protocol == NEW else truth.nothing
        lists = {CANDIDATE: ours[place].rows, POPULARITY: popular(known, LIST, out, barred)}
        if protocol in together:
            lists[TOGETHER] = together[protocol]
        if champion:
            lists[CHAMPION] = without_barred(_translated(theirs[place].rows, champion, truth.catalogue), barred)
        found[protocol] = compare(lists, targets_of(truth, barred)[protocol], system.answer_size)
    return found


def targets_of(truth: Truth, barred: NDArray[np.bool_]) -> dict[str, Target]:
    """What counts under each protocol. An item no answer may hold is nobody's target."""
    in_catalogue = truth.target.items < len(barred)
    open_target = truth.target.only(~(in_catalogue & barred[np.where(in_catalogue, truth.target.items, 0)]))
    return {ALL: open_target, NEW: new_target(truth, open_target)}


def _cold(
    system: System, truth: Truth, told: dict[str, BatchResult], known: Known, target: Target, barred: NDArray[np.bool_]
) -> dict[str, Numbers]:
    """The same users as if only their last baskets were known, judged on everything that counts for them in the judged days."""
    protocol = deciding_protocol(system)
    at = _cold_users(truth.users)
    some, found = target.of_users(at), {}
    for baskets, name in zip(COLD_BASKETS, _cold_names(), strict=True):
        states = [made_cold(truth.states[int(truth.users[user])], baskets) for user in at.tolist()]
        out = _out_of(states, truth.catalogue) if protocol == NEW else Target(some.users[:0], some.items[:0], len(at))
        lists = {CANDIDATE: told[name].rows, POPULARITY: popular(known, LIST, out, barred)}
        found[name] = {protocol: compare(lists, some, system.answer_size)}
    return found


def _out_of(states: list[UserState], catalogue: Catalogue) -> Target:
    """What these users (U) had, as far as the catalogue holds it."""
    rows = [catalogue.rows_of_keys(state.keys) for state in states]
    owner, items = np.repeat(np.arange(len(rows)), [len(mine) for mine in rows]), np.concatenate(rows).astype(np.int64)
    return Target(owner[items >= 0], items[items >= 0], len(rows))


def _answer(system: System, truth: Truth, rows: Lists, target: Target, barred: NDArray[np.bool_]) -> Numbers:
    """What a user would see: k items under every rule."""
    k = system.answer_size
    found = compare({CANDIDATE: rows}, target, k)["recommenders"].get(CANDIDATE, {})
    there = rows != NOTHING
    return {
        "k": k,
        "metrics": {metric: found[metric] for metric in (f"ndcg@{k}", "recall@10", "hit_rate@10", "mrr", "mrr@20") if metric in found},
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


def latency(told: BatchResult) -> dict[str, Any]:
    """Milliseconds of an answer, without the server and the online read. From one process a core: noisy, never part of a digest."""
    return {
        "requests": len(told.rows),
        **{
            f"{kind}_ms_p{q}": round(float(np.percentile(values, q)), 3)
            for kind, values in (("cpu", told.cpu_ms), ("wall", told.wall_ms))
            for q in (50, 99)
        },
    }


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write_lists(truth: Truth, lists: dict[str, Lists], path: Path) -> None:
    """Every judged list: protocol, user_id, rank (1-based), item_id."""
    import pyarrow as pa
    import pyarrow.parquet

    items, users = (pa.array(np.char.decode(ids)) for ids in (truth.catalogue.item_ids, np.asarray(truth.states.user_ids)[truth.users]))
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
