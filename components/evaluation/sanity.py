"""The half of the gate that a bundle learnt again from all rows can go through: it has seen the judged week, so accuracy is not asked.

Asked is what needs no truth: that it answers everybody, shows nothing barred, keeps its size and cost, and that its lists are still
those of the twin that was judged: overlap@10 over the same users' states.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.evaluation.batch import BatchResult, Question, ask
from components.evaluation.evaluate import bytes_of, latency
from components.evaluation.gate import LARGEST_BUNDLE_BYTES, Check, at_most, write_verdict
from components.evaluation.metrics import NOTHING
from components.evaluation.visible import barred_items
from serving.bundle.bundle import show
from serving.bundle.catalogue import Catalogue
from serving.state.user_state import StateTable
from serving.system import System

USERS = 500  # asked, spread evenly by id
K = 10
LEAST_OVERLAP = 0.3  # a stated bound, not a measured one: below it, it is another recommender than the judged


def sanity(system: System, bundle: Path, twin: Path, users: Path, out: Path) -> bool:
    """Judge the refitted `bundle` beside its judged `twin` on the states of `users`; write `out/gate.json`, return whether it passed."""
    states = StateTable.load(users)
    some = np.unique(np.linspace(0, len(states) - 1, min(USERS, len(states))).astype(np.int64))
    questions = [Question(some, max(K, system.answer_size), all_rules=True)]
    (ours,), (theirs,) = ask(system, bundle, users, questions), ask(system, twin, users, questions)
    checks = [*_answered(system, bundle, ours), overlapping(overlap(ours, bundle, theirs, twin), len(some))]
    verdict = write_verdict(checks, out, checks[-1].name)
    verdict |= {"bundle": show(bundle)["digest"], "judged": show(twin)["digest"], "cost": latency(ours)}
    (out / "gate.json").write_text(json.dumps(verdict, indent=1, sort_keys=True) + "\n")
    return bool(verdict["passed"])


def _answered(system: System, bundle: Path, told: BatchResult) -> list[Check]:
    barred = barred_items(system, Catalogue.load(bundle / "item_table"))
    there = told.rows != NOTHING
    return [
        at_most("empty answers", int((~there.any(axis=1)).sum()), 0, "users got an empty answer"),
        at_most(
            "forbidden items", int((barred[np.maximum(told.rows, 0)] & there).sum()), 0, "items that must never be shown were answered"
        ),
        at_most("size", bytes_of(bundle), LARGEST_BUNDLE_BYTES, "bytes in the bundle"),
        at_most("cost", latency(told)["cpu_ms_p50"], system.budget.total_ms, "ms of CPU a request, in the middle"),
    ]


def overlap(ours: BatchResult, bundle: Path, theirs: BatchResult, twin: Path) -> float:
    """Overlap@10: the mean share of a user's first ten items that both bundles list. Items are compared by key, not by row."""
    mine, yours = (_keys(told, folder) for told, folder in ((ours, bundle), (theirs, twin)))
    shares = [len(set(a) & set(b)) / max(len(a), len(b), 1) for a, b in zip(mine, yours, strict=True)]
    return float(np.mean(shares))


def overlapping(share: float, users: int) -> Check:
    """The check of that share."""
    told = f"overlap@{K} with the judged twin is {share:.3f} over {users} users, at least {LEAST_OVERLAP:g} is needed."
    return Check("overlap with the judged twin", share >= LEAST_OVERLAP, told)


def _keys(told: BatchResult, bundle: Path) -> list[NDArray[np.uint64]]:
    keys = np.asarray(Catalogue.load(bundle / "item_table").keys)
    return [keys[rows[rows != NOTHING][:K]] for rows in told.rows]
