"""Whether a bundle may be released: one decision, and the one number that made it.

Checks run in order and the first that fails decides. A random ranker and a copy of popularity fall at the first, because neither beats
popularity by more than its error; the later ones look where a good mean hides harm (known and unknown users, new items, size, cost).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.system import System

ERRORS = 2.0  # standard errors of a paired difference that count as real (quality.md)
SLICE_ERRORS = 3.0  # a dozen slices are looked at: one of them is two errors off by luck every second time
SLICE_USERS = 30  # fewer users than this decide nothing
DECIDING = "ndcg@10"
GUARDED = ("ndcg@10", "recall@100", "recall@1000")
LARGEST_BUNDLE_BYTES = 2 << 30  # what a pod of the serving image may hold

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One question asked of the metrics."""

    name: str
    passed: bool
    sentence: str  # holds the number


def decide(system: System, metrics: Path, out: Path) -> bool:
    """Judge `metrics` (the evaluate step's folder), write `out/gate.json` (passed, decided_by, sentence, every check) and return whether it
    passed.
    """
    found = json.loads((metrics / "metrics.json").read_text())
    cost = json.loads((metrics / "latency.json").read_text())
    checks = [*_checks(system, found, cost)]
    failed = [check for check in checks if not check.passed]
    decided = failed[0] if failed else checks[0]
    verdict = {
        "passed": not failed,
        "decided_by": decided.name,
        "sentence": ("Refused: " if failed else "Passed: ") + decided.sentence,
        "bundle": found["bundle"],
        "champion": found["champion"],
        "champion_unreadable": found.get("champion_unreadable"),
        "checks": [asdict(check) for check in checks],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "gate.json").write_text(json.dumps(verdict, indent=1, sort_keys=True) + "\n")
    return not failed


def _checks(system: System, metrics: Metrics, cost: Metrics) -> Iterator[Check]:
    yield _beats_popularity(metrics)
    rivals = ["popularity"] + (["champion"] if metrics["champion"] else [])
    for rival in rivals:
        yield from _not_worse(metrics["protocols"], rival, ERRORS, "all households")
    for rival in rivals:
        for place in ("slices", "cold"):
            for name, judged in metrics[place].items():
                yield from _not_worse(judged, rival, SLICE_ERRORS, name)
    yield _at_most("empty answers", metrics["answer"]["empty"], 0, "users got an empty answer")
    yield _at_most("forbidden items", metrics["answer"]["forbidden"], 0, "items that must never be shown were answered")
    yield _at_most("size", metrics["bundle_bytes"], LARGEST_BUNDLE_BYTES, "bytes in the bundle")
    yield _at_most("cost", cost["cpu_ms_p50"], system.budget.total_ms, "ms of CPU a request, in the middle")


def _beats_popularity(metrics: Metrics) -> Check:
    judged = metrics["protocols"]["all"]
    ours, theirs = (judged["recommenders"][who][DECIDING]["value"] for who in ("candidate", "popularity"))
    difference = judged["against"]["popularity"][DECIDING]
    ahead = judged["users"] > 1 and difference["value"] > ERRORS * difference["error"]
    words = "is ahead of" if ahead else "is not clearly ahead of"
    return Check(
        f"{DECIDING} against popularity",
        bool(ahead),
        f"NDCG@10 {ours:.4f} {words} popularity's {theirs:.4f}: difference {_plus_minus(difference)}, needed over {ERRORS:g} errors.",
    )


def _not_worse(protocols: Metrics, rival: str, errors: float, whom: str) -> Iterator[Check]:
    """No guarded metric of either protocol is behind the rival's by more than `errors` errors."""
    for protocol, judged in protocols.items():
        if judged["users"] < SLICE_USERS or rival not in judged["against"]:
            continue
        for metric in GUARDED:
            difference = judged["against"][rival][metric]
            behind = difference["value"] < -errors * difference["error"]
            said = f"{metric} ({protocol}, {whom}) differs from {rival} by {_plus_minus(difference)}"
            yield Check(f"{metric} {protocol} against {rival}, {whom}", not behind, f"{said}, allowed to {errors:g} errors below.")


def _at_most(name: str, value: float, limit: float, meaning: str) -> Check:
    return Check(name, value <= limit, f"{value:g} {meaning}, allowed {limit:g}.")


def _plus_minus(difference: Metrics) -> str:
    return f"{difference['value']:+.4f} ± {difference['error']:.4f}"
