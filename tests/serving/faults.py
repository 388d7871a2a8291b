"""Faults alone and in pairs, under load: `python -m tests.serving.faults` (`make faults`) runs all of them and prints what was answered.

A case: lists are asked for at a constant rate, half a second later the faults begin, and go on for the rest of the run, while every user's
events come in so that no list is answered from a pool made before. Every answer is looked at. Then the faults end, and it is timed until
the full rung answers for every user. Whether a fault is felt at all is looked at too, by the reason it must leave.
"""

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from serving.resilience.ladder import COSTS
from tests.bench.load import Reply, http_request, run_load
from tests.serving import tiny_bundle
from tests.serving.asking import children
from tests.serving.deployment import LAYOUTS, STORES, Deployment, acknowledged_once, may_mount, stolen_ms, waited_ms

RATE, SECONDS, WORKERS_SECONDS, BEFORE = 25.0, 3.0, 8.0, 0.5
BUDGET_MS = float(tiny_bundle.system().budget.total_ms)
NOISE_MS = 100.0  # of wall time, between the client and the server
RECOVERY_SECONDS = 10.0
KNOWN = tuple(f"u{number:02}" for number in range(tiny_bundle.USERS))
LOGGED = KNOWN[:-1]  # the last consents to minimal use: nothing of theirs is kept
BARRED = {f"i{number:03}" for number in range(tiny_bundle.ITEMS - 3, tiny_bundle.ITEMS)}
YEAR = 365 * 86_400
INNER = ("retrieval", "ranking")  # servers that a fused one has not

RECALLED = tuple(f"i{number:03}" for number in range(0, tiny_bundle.ITEMS - 3, 4))  # a quarter, so that some would be shown
Act = Callable[[Deployment], Any]


def nothing(_: Deployment) -> None:
    """No act."""


def slow(role: str, seconds: float) -> Act:
    return lambda deployment: deployment.proxies[role].slow(seconds)


@dataclass(frozen=True)
class Fault:
    """One thing that breaks. `of`: what it breaks, so that no pair breaks the same twice; `told`: what reasons then say."""

    name: str
    of: str
    begin: Act = nothing
    end: Act = nothing
    prepare: Act = nothing  # before the load
    told: str = ""
    before: float = BEFORE  # seconds of load without it
    refuses_after: float = float("inf")  # seconds, from when events cannot be acknowledged: 503, and later again
    users: tuple[str, ...] = KNOWN
    stores: tuple[str, ...] = STORES
    layouts: tuple[str, ...] = ("split", "fused")
    pairs: bool = True  # tried with each other one too
    recalled: tuple[str, ...] = ()  # by `begin`: in no list that is asked for after it
    loses: int = 0  # requests that may have been with what was killed
    can: Callable[[], bool] = lambda: True  # False: not on this machine


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("Redis gone", "state", Deployment.kill_redis, Deployment.start_redis, told="user state", stores=("redis",)),
        Fault("Redis slow (2 s)", "state", slow("redis", 2), slow("redis", 0), told="user state", stores=("redis",)),
        Fault("SQLite gone", "state", Deployment.damage_states, Deployment.restore_states, told="user state", stores=("sqlite",)),
        Fault("Redis restarts empty", "state", Deployment.empty_redis, stores=("redis",)),
        Fault(
            "Redis gone, front restarted", "state", prepare=Deployment.restart_without_redis, end=Deployment.start_redis,
            told="user state", before=0, stores=("redis",),
        ),
        Fault(
            "recall while Redis is gone", "state", lambda d: (d.kill_redis(), d.say(*RECALLED)),
            lambda d: (d.start_redis(), d.say(*RECALLED, lift=True)), told="user state", stores=("redis",), recalled=RECALLED,
        ),
        Fault("retrieval killed", "retrieval", lambda d: d.kill("retrieval"), lambda d: d.start("retrieval"), told="retrieval"),
        Fault("ranking killed", "ranking", lambda d: d.kill("ranking"), lambda d: d.start("ranking"), told="ranking"),
        Fault("ranking slow (2 s)", "ranking", slow("ranking", 2), slow("ranking", 0), told="ranking"),
        Fault("disk full", "log", lambda d: d.fill_disk(True), lambda d: d.fill_disk(False), refuses_after=0),
        Fault("event log removed", "log", lambda d: d.move_log(True), lambda d: d.move_log(False), refuses_after=0),
        Fault("exposures' disk full", "exposures", Deployment.fill_small_disk, Deployment.free_small_disk, pairs=False, can=may_mount),
        Fault("items posted", "items", Deployment.post_items, Deployment.stop_posting, layouts=("fused", "workers"), pairs=False),
        Fault("worker killed", "worker", Deployment.kill_worker, layouts=("workers",), loses=8),
        Fault("bundle swapped", "bundle", Deployment.swap_bundle, Deployment.swap_back, layouts=("workers",)),
        Fault("event log locked", "log", Deployment.lock_log, Deployment.unlock_log, refuses_after=5),
        Fault("cached lists corrupt", "lists", prepare=Deployment.damage_lists, end=Deployment.restore_lists, before=0),
        Fault("unknown users", "users", users=tuple(f"stranger {number}" for number in range(200))),
        Fault("clock jumps", "clock", lambda d: d.shift_clock(YEAR), lambda d: d.shift_clock(-YEAR)),
    )
}  # fmt: skip


@dataclass
class Outcome:
    """What one case saw."""

    faults: tuple[str, ...]
    store: str
    layout: str
    sent: int = 0
    good: int = 0
    withheld_ms: float = 0.0  # the servers were ready to run and were not let, or the client was late
    worst_took_ms: float = 0.0
    over_ms: float = 0.0  # what all answers took beyond their budget
    p95_ms: float = 0.0
    worst_ms: float = 0.0
    rungs: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    events: Counter[int] = field(default_factory=Counter)  # batches by status
    acknowledged: list[str] = field(default_factory=list)
    recovery_s: float = float("nan")
    problems: list[str] = field(default_factory=list)


def cases(store: str, together: int, layout: str = "split") -> list[tuple[Fault, ...]]:
    """Every fault (1) or pair (2) that can be with this store in this layout."""
    some = [
        fault for fault in FAULTS.values()
        if store in fault.stores and layout in fault.layouts and (layout == "split" or fault.of not in INNER)
        and (together == 1 or fault.pairs) and fault.can()
    ]  # fmt: skip
    return [case for case in itertools.combinations(some, together) if len({fault.of for fault in case}) == together]


def long_enough(case: Sequence[Fault], layout: str = "split") -> float:
    """Seconds after which everything of the case has been felt; a worker takes some to start."""
    return max(
        [
            SECONDS if layout != "workers" else WORKERS_SECONDS,
            *(fault.refuses_after + 1 for fault in case if fault.refuses_after < RECOVERY_SECONDS),
        ]
    )


def run_case(deployment: Deployment, case: Sequence[Fault], seconds: float = SECONDS) -> Outcome:
    """Load, faults, their end, recovery. Nothing is raised for a bad answer: it is among the `problems`."""
    outcome = Outcome(tuple(fault.name for fault in case), deployment.store, deployment.layout)
    for fault in case:
        fault.prepare(deployment)
    before = min((fault.before for fault in case), default=BEFORE)
    users = next((fault.users for fault in case if fault.users is not KNOWN), KNOWN)
    requests = [http_request("/v1/recommendations", json.dumps({"user_id": user}).encode()) for user in users]
    stop = threading.Event()
    events = threading.Thread(target=_events, args=(deployment, outcome, stop, f"{len(deployment_log(deployment))}"))
    loads: list[Any] = []
    count = round(RATE * (before + seconds))
    load = threading.Thread(
        target=lambda: loads.append(
            run_load(deployment.front.port, requests, rate=RATE, seconds=before + seconds, keep=count, timeout_s=20)
        )
    )
    withheld, started = Withheld(deployment), perf_counter()
    events.start()
    load.start()
    time.sleep(before)
    for fault in case:
        fault.begin(deployment)
    begun_s = perf_counter() - started
    load.join()
    outcome.withheld_ms = withheld.ms + (max(loads[0].late_ms) if loads else 0)
    stop.set()
    for fault in reversed(case):
        fault.end(deployment)
    _recover(deployment, outcome, perf_counter())
    events.join(20)
    outcome.sent = count
    recalled = {item for fault in case for item in fault.recalled}
    answered = [reply for reply in loads[0].replies if reply.status] if loads else []
    for reply in answered:
        _judge(outcome, reply, recalled if reply.intended_s >= begun_s else set())
    if outcome.over_ms > _excused(outcome):
        outcome.problems.append(f"took {outcome.worst_took_ms:.0f} ms, in all {outcome.over_ms:.0f} ms over the budget")
    _summed(outcome, [reply.latency_ms for reply in answered], case, seconds)
    deployment.shift_clock(0)
    deployment_log(deployment).extend(outcome.acknowledged)
    return outcome


class Withheld:
    """How long the machine kept a deployment's processes waiting since this was made: ready to run and not let, or stolen by its host."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._before, self._stolen = self._waited(), stolen_ms()

    def _waited(self) -> Counter[int]:
        waited = Counter[int]()
        for server in self._deployment.servers.values():
            with suppress(OSError):  # killed
                for pid in (server.process.pid, *children(server)):
                    waited[pid] = round(waited_ms(pid))
        return waited

    @property
    def ms(self) -> float:
        return stolen_ms() - self._stolen + sum((self._waited() - self._before).values())


def _excused(outcome: Outcome) -> float:
    """Milliseconds that all answers together may be late by for want of a processor: as long for each that is asked for meanwhile."""
    return outcome.withheld_ms * (1 + RATE * outcome.withheld_ms / 1e3)


def deployment_log(deployment: Deployment) -> list[str]:
    """Ids acknowledged in the cases so far."""
    return deployment.__dict__.setdefault("acknowledged", [])


def lost_events(deployment: Deployment) -> list[str]:
    """What was acknowledged and is not in the log, or is there twice."""
    kept = Counter(acknowledged_once(deployment.events))
    return [one for one in deployment_log(deployment) if kept[one] != 1]


def _events(deployment: Deployment, outcome: Outcome, stop: threading.Event, prefix: str) -> None:
    """Every user looks at something, four times a second."""
    for turn in itertools.count():
        batch = [
            {
                "event_id": f"{'+'.join(outcome.faults)}-{prefix}-{turn}-{user}", "event_type": "product_view", "user_id": user,
                "item_id": f"i{(100 + turn) % 230:03}", "timestamp": "2024-10-04T12:00:00Z",
            }
            for user in LOGGED
        ]  # fmt: skip
        try:
            status = deployment.post(batch)
        except OSError:
            status = 0
        outcome.events[status] += 1
        if status == 200:
            outcome.acknowledged += [one["event_id"] for one in batch]
        if stop.wait(0.25):
            return


def _judge(outcome: Outcome, reply: Reply, recalled: Set[str]) -> None:
    """Is this answer one? 200, ten distinct items, none barred, three a category, a rung with its reason, in time by the server's clock.

    One beyond its budget is not good. It is a problem only where the answers of the case were late by more, all together, than the
    processors withheld meanwhile explain (`_excused`).
    """
    if reply.status != 200:
        outcome.problems.append(f"status {reply.status}: {reply.body[:200]!r}")
        return
    answer = json.loads(reply.body)
    ids = [item["item_id"] for item in answer["items"]]
    degraded = answer["degraded"] or {"rung": "full", "reason": ""}
    took = float(answer["took_ms"])
    outcome.worst_took_ms, outcome.over_ms = max(outcome.worst_took_ms, took), outcome.over_ms + max(took - BUDGET_MS, 0)
    outcome.rungs[degraded["rung"]] += 1
    outcome.reasons[degraded["reason"]] += 1
    categories = Counter(int(one[1:]) % tiny_bundle.CATEGORIES for one in ids)
    wrong = [
        f"{len(ids)} items" if len(ids) != 10 else "",
        "an item twice" if len(set(ids)) != len(ids) else "",
        "a barred item" if BARRED & set(ids) else "",
        "a recalled item" if recalled & set(ids) else "",
        "a cap broken" if categories and max(categories.values()) > 3 else "",
        f"rung {degraded['rung']}" if degraded["rung"] not in COSTS else "",
        "no reason" if answer["degraded"] and not degraded["reason"] else "",
    ]
    found = [one for one in wrong if one]
    outcome.good += not found and took <= BUDGET_MS
    outcome.problems += found


def _recover(deployment: Deployment, outcome: Outcome, ended: float) -> None:
    """Until every user is answered from the full rung in a row, and events are taken."""
    in_a_row, withheld = 0, Withheld(deployment)
    while perf_counter() - ended < RECOVERY_SECONDS + withheld.ms / 1e3:
        answer = deployment.ask(KNOWN[in_a_row])
        in_a_row = in_a_row + 1 if answer["degraded"] is None else 0
        if in_a_row == len(KNOWN):
            outcome.recovery_s = perf_counter() - ended
            return
        time.sleep(0.02)
    outcome.problems.append(f"not the full rung {RECOVERY_SECONDS:.0f} s after the end: {answer['degraded']}")


def _summed(outcome: Outcome, latencies_ms: list[float], case: Sequence[Fault], seconds: float) -> None:
    if outcome.sent - len(latencies_ms) > sum(fault.loses for fault in case):
        outcome.problems.append(f"{len(latencies_ms)} of {outcome.sent} answered")
    if latencies_ms:
        outcome.p95_ms, outcome.worst_ms = float(np.percentile(latencies_ms, 95)), max(latencies_ms)
        late = sum(max(one - BUDGET_MS - NOISE_MS, 0) for one in latencies_ms)
        if outcome.p95_ms > BUDGET_MS + NOISE_MS and late > _excused(outcome):
            outcome.problems.append(f"p95 {outcome.p95_ms:.0f} ms")
    told = " ".join(outcome.reasons)
    if len(case) == 1 and case[0].told not in told:
        outcome.problems.append(f"not felt: no reason names {case[0].told!r}")
    if len(case) == 2 and {"retrieval killed", "cached lists corrupt"} == set(outcome.faults) and "cached list: names" not in told:
        outcome.problems.append("not felt: no cached list was refused")
    if any(fault.refuses_after < seconds for fault in case) and not outcome.events[503]:
        outcome.problems.append("not felt: no event was refused")
    if set(outcome.events) - {200, 503}:
        outcome.problems.append(f"events were answered with {sorted(outcome.events)}")


def main() -> int:
    """All singles and pairs; the exit status is the number of cases with problems."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m tests.serving.faults")
    parser.add_argument("--only", choices=("singles", "pairs"), help="default: both")
    parser.add_argument("--store", choices=STORES, help="default: both")
    parser.add_argument("--layout", choices=LAYOUTS, help="default: all")
    given = parser.parse_args()
    console, outcomes, lost, wrong = Console(width=170), [], [], []
    for layout, store in itertools.product((given.layout,) if given.layout else LAYOUTS, (given.store,) if given.store else STORES):
        if (layout, store) == ("workers", "redis"):
            continue  # what breaks there has nothing to do with the store
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            with Deployment(Path(folder), store, layout) as deployment:
                for together in {"singles": (1,), "pairs": (2,)}.get(given.only, (1, 2)):
                    for case in cases(store, together, layout):
                        if layout != "workers" and store == "sqlite" and "SQLite gone" not in {fault.name for fault in case}:
                            continue  # the same as with Redis
                        outcomes.append(run_case(deployment, case, long_enough(case, layout)))
                        console.print(_line(outcomes[-1]), highlight=False)
                wrong += deployment.states_that_differ()
            lost += lost_events(deployment)
    table = Table("faults", "servers", "good", "rungs", "took ms", "p95 ms", "worst ms", "back after s", "events 200/503", "problems")
    for one in outcomes:
        table.add_row(*_cells(one))
    console.print(table)
    bad = [one for one in outcomes if one.problems]
    console.print(
        f"{len(outcomes)} cases, {sum(one.good for one in outcomes)} of {sum(one.sent for one in outcomes)} answers good, ", end=""
    )
    console.print(f"{len(bad)} cases with problems, {len(lost)} acknowledged events lost or twice, ", end="")
    console.print(f"{len(wrong)} users' states that are not what the log says")
    return len(bad) + bool(lost) + bool(wrong)


def _cells(one: Outcome) -> list[str]:
    rungs = ", ".join(f"{rung} {count}" for rung, count in one.rungs.most_common())
    figures = [f"{one.worst_took_ms:.1f}", f"{one.p95_ms:.0f}", f"{one.worst_ms:.0f}", f"{one.recovery_s:.1f}"]
    told = "; ".join(f"{what} x{count}" for what, count in Counter(one.problems).most_common(3))
    return [
        " + ".join(one.faults),
        f"{one.layout}, {one.store}",
        f"{one.good}/{one.sent}",
        rungs,
        *figures,
        f"{one.events[200]}/{one.events[503]}",
        told,
    ]


def _line(one: Outcome) -> str:
    return " | ".join(_cells(one))


if __name__ == "__main__":
    sys.exit(main())
