"""What `make bench` measures of one catalogue: cost in rounds in which all subjects take their turn, then latency and capacity.

Everybody is asked for the same users in the same order in a round, and nobody twice, so no answer comes from a cache; before the rounds
each user has looked at one item, so every online read finds a state. Ratios and differences are taken round by round.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from serving.bundle.bundle import Bundle
from serving.state.user_state import StateTable
from tests.bench.load import Load, run_load
from tests.bench.servers import Cost, Engine, Subject, Touch, cost, engine, has_kernel_option, naive, ours, split, touch, whole_answers

FUSED, PURE, SPLIT, NAIVE = "ours, fused", "ours, fused, pure", "ours, split", "naive"
NAIVE_LOAD = 0.45  # of what one core can do
MOST_BUSY = 0.6  # the same of ours: beyond, the queue is what is measured, and the ladder answers from lower rungs
CROWD = 4  # requests under way at any moment where a server is asked without pauses
_CROWD_RATE = 1e5  # more than anything answers: a request leaves as soon as there is a connection
_TRIAL, _TRIAL_RATE = 120, 60.0  # of ours; a third of both of the naive build


@dataclass(frozen=True)
class Plan:
    """How long each part is measured."""

    rounds: int = 5
    requests: int = 600  # a round, each for another user
    rate: float = 200.0  # offered while CPU is counted: the rate of the target line; less where it would keep the core too busy
    naive_requests: int = 200
    crowd_requests: int = 200  # a round, without pauses
    naive_rate: float = 0.0  # 0: `NAIVE_LOAD` of what a trial says one core can do
    open_rate: float = 200.0  # offered while latency is counted
    open_seconds: float = 10.0
    open_runs: int = 3
    steps: tuple[float, ...] = (200, 250, 310, 390, 490, 610, 760)  # rates tried for the capacity, two seconds each
    pure: bool = True
    split: bool = True
    naive: bool = True
    million: bool = True


class Users:
    """User ids in a fixed random order, none given twice. Raises `RuntimeError` when they run out."""

    def __init__(self, folder: Path) -> None:
        ids = StateTable.load(folder).user_ids.tolist()
        self._ids = [one.decode() for one in np.random.default_rng(0).permutation(ids)]
        self._at = 0

    def __len__(self) -> int:
        return len(self._ids) - self._at

    def next(self, count: int) -> list[str]:
        if count > len(self):
            raise RuntimeError(f"{count} more users asked for, {len(self)} are left: measure fewer rounds, or make more users")
        self._at += count
        return self._ids[self._at - count : self._at]


def measure(system: str, bundle: Path, users: Path, whole: Path | None, plan: Plan) -> dict[str, Any]:
    """Every figure of one catalogue. `whole`: the uncut rankers, where there is a naive build to compare with."""
    asked = Users(users)
    requests = min(plan.requests, (len(asked) - _TRIAL) // plan.rounds - plan.crowd_requests)
    costs: dict[str, list[Cost]] = {}
    crowds: dict[str, list[Cost]] = {}
    engines: dict[str, list[dict[str, Any]]] = {}
    touches = touches_of(bundle, users)
    with _subjects(system, bundle, users, whole, plan) as (subjects, beside):
        for subject in subjects:
            if subject.takes_events:
                touch(subject, touches)
        for one in beside.values():
            one.tell({"events": touches})
        trial = asked.next(_TRIAL)
        trials = {subject.name: _trial(subject, trial) for subject in subjects}
        rates = {name: float(min(plan.rate, round(MOST_BUSY * 1000 / spent))) for name, spent in trials.items()}
        if SPLIT in rates:  # a lower rate is a colder cache: what is subtracted must be asked alike
            rates[FUSED] = rates[SPLIT] = min(rates[FUSED], rates[SPLIT])
        if NAIVE in trials:
            rates[NAIVE] = plan.naive_rate or float(round(NAIVE_LOAD * 1000 / trials[NAIVE]))
        for _ in track(range(plan.rounds), description="rounds", transient=True):
            now, crowd = asked.next(requests), asked.next(plan.crowd_requests)
            for subject in subjects:
                some = now[: plan.naive_requests] if subject.name == NAIVE else now
                costs.setdefault(subject.name, []).append(cost(subject, some, rates[subject.name]))
                crowds.setdefault(subject.name, []).append(cost(subject, crowd, _CROWD_RATE, idle=False, connections=CROWD))
                if subject.name in beside:
                    engines.setdefault(subject.name, []).append(beside[subject.name].measure(now, rates[subject.name]))
                    engines.setdefault(f"{subject.name}, saturated", []).append(beside[subject.name].measure(now, 0))
        ready = {subject.name: subject.ready_s for subject in subjects}
    record = {name: _summary(found, rates[name], ready[name]) for name, found in costs.items()}
    record["engine"] = {name: _engine_summary(found) for name, found in engines.items()}
    record |= _compared(costs, engines)
    record["without_pauses"] = _without_pauses(crowds)
    record["open_loop"] = open_loop(system, bundle, users, plan, ours)
    if plan.split:
        record["open_loop_split"] = open_loop(system, bundle, users, plan, split)
    record["capacity"] = capacity(system, bundle, users, plan)
    return record


def _trial(subject: Subject, users: list[str]) -> float:
    """CPU milliseconds a request at a low rate, the first third of the requests not counted: they are a new server's."""
    share = 3 if subject.name == NAIVE else 1
    some, rate = users[: len(users) // share], _TRIAL_RATE / share
    cost(subject, some[: len(some) // 3], rate, idle=False)
    return cost(subject, some[len(some) // 3 :], rate, idle=False).cpu_ms


def touches_of(bundle: Path, users: Path) -> list[Touch]:
    """One look at a popular item by every user, an hour after the cut."""
    catalogue, table = Bundle.load(bundle, verify=False).catalogue, StateTable.load(users)
    rows = np.random.default_rng(1).integers(min(2_000, len(catalogue)), size=len(table)).tolist()
    ids = [item.decode() for item in catalogue.item_ids[: min(2_000, len(catalogue))].tolist()]
    return [(user.decode(), ids[row], table.cut_day + 1 / 24) for user, row in zip(table.user_ids.tolist(), rows, strict=True)]


@contextmanager
def _subjects(
    system: str, bundle: Path, users: Path, whole: Path | None, plan: Plan
) -> Iterator[tuple[list[Subject], Mapping[str, Engine]]]:
    """The servers, and the engines to be measured beside them by the server's name."""
    with ExitStack() as stack:
        subjects = [stack.enter_context(ours(system, bundle, users, name=FUSED))]
        beside = {FUSED: stack.enter_context(engine(system, bundle, users))}
        if plan.pure and has_kernel_option():
            subjects.append(stack.enter_context(ours(system, bundle, users, name=PURE, kernel="pure")))
            beside[PURE] = stack.enter_context(engine(system, bundle, users, kernel="pure"))
        if plan.split:
            subjects.append(stack.enter_context(split(system, bundle, users, name=SPLIT)))
        if plan.naive and whole is not None:
            subjects.append(stack.enter_context(naive(system, bundle, users, whole)))
        yield subjects, beside


def open_loop(
    system: str, bundle: Path, users: Path, plan: Plan, servers: Callable[..., AbstractContextManager[Subject]]
) -> dict[str, Any]:
    """Latency at a constant arrival rate, servers and client on all cores; each run has new servers, to which nobody is known."""
    loads = []
    for _ in range(plan.open_runs):
        with servers(system, bundle, users, cores=range(64)) as subject:
            asked = Users(users)
            cost(subject, asked.next(_TRIAL), 20.0, idle=False, apart=False)
            touch(subject, touches_of(bundle, users))
            count = min(int(plan.open_rate * plan.open_seconds), len(asked))
            loads.append(cost(subject, asked.next(count), plan.open_rate, idle=False, apart=False).load)
    return {
        "rate": plan.open_rate,
        "from_full_rung": round(sum(map(whole_answers, loads)) / sum(load.sent for load in loads), 4),
        "requests_a_run": loads[0].sent,
        "runs": [_percentiles(load) for load in loads],
        **{f"p{p}_ms": round(float(np.median([load.percentile(p) for load in loads])), 2) for p in (50, 95, 99)},
        "client_late_p99_ms": round(float(np.percentile(np.concatenate([load.late_ms for load in loads]), 99)), 3),
        "client_cpu_ms": round(1000 * sum(load.client_cpu_s for load in loads) / sum(load.sent for load in loads), 3),
    }


def capacity(system: str, bundle: Path, users: Path, plan: Plan) -> dict[str, Any]:
    """The highest rate tried at which one core gave every answer from the full rung with p99 under 100 ms."""
    reached: dict[str, Any] = {"rate": 0.0}
    with ours(system, bundle, users) as subject:
        asked = Users(users)
        touch(subject, touches_of(bundle, users))
        for rate in plan.steps:
            if int(2 * rate) > len(asked):
                break
            requests = [subject.request(user) for user in asked.next(int(2 * rate))]
            load = run_load(subject.port, requests, rate=rate, seconds=2, timeout_s=20, keep=len(requests), connections=128)
            whole = whole_answers(load)
            if whole < load.sent or load.percentile(99) > 100:
                return reached | {"not_at": rate, "from_lower_rungs": load.sent - whole, "p99_ms_there": round(load.percentile(99), 1)}
            reached = {"rate": rate, "p99_ms": round(load.percentile(99), 2)}
    return reached


def _percentiles(load: Load) -> dict[str, float]:
    return {f"p{p}_ms": round(load.percentile(p), 2) for p in (50, 90, 95, 99, 99.9)} | {"most_ms": round(max(load.latencies_ms), 2)}


def _summary(costs: Sequence[Cost], rate: float, ready_s: float) -> dict[str, Any]:
    cpu = [one.cpu_ms for one in costs]
    latencies = np.concatenate([one.load.latencies_ms for one in costs])
    middle = float(np.median(cpu))
    return {
        "rate": rate,
        "core_busy": round(rate * middle / 1000, 3),
        "cpu_ms": round(middle, 3),
        "cpu_ms_range": [round(min(cpu), 3), round(max(cpu), 3)],
        "from_full_rung": round(sum(one.whole for one in costs) / sum(one.load.sent for one in costs), 4),
        "idle_ms": round(float(np.median([one.idle_ms for one in costs])), 3),
        **{f"p{p}_ms": round(float(np.percentile(latencies, p)), 2) for p in (50, 95, 99)},
        "rss_mb": round(costs[-1].rss_mb, 0),
        "ready_s": round(ready_s, 2),
    }


def _without_pauses(crowds: Mapping[str, Sequence[Cost]]) -> dict[str, Any]:
    """Milliseconds of CPU with `CROWD` requests under way at any moment: caches never go cold, and nobody's processor sleeps."""
    record: dict[str, Any] = {}
    cpu = {name: [one.cpu_ms for one in found] for name, found in crowds.items()}
    for name, found in crowds.items():
        full = round(sum(one.whole for one in found) / sum(one.load.sent for one in found), 4)
        record[name] = spread(cpu[name]) | {"from_full_rung": full}
    if NAIVE in cpu:
        record["naive_over_ours"] = spread([a / b for a, b in zip(cpu[NAIVE], cpu[FUSED], strict=True)])
    if SPLIT in cpu:
        record["split_minus_fused_ms"] = spread([a - b for a, b in zip(cpu[SPLIT], cpu[FUSED], strict=True)])
    return record


def _engine_summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cpu = [one["cpu_ms"] for one in found]
    return {**spread(cpu), "stage_ms": found[-1]["stage_ms"]}


def _compared(costs: Mapping[str, Sequence[Cost]], engines: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Ratios and differences of rounds run side by side."""
    record: dict[str, Any] = {}
    cpu = {name: [one.cpu_ms for one in found] for name, found in costs.items()}
    if NAIVE in cpu:
        record["naive_over_ours"] = spread([a / b for a, b in zip(cpu[NAIVE], cpu[FUSED], strict=True)])
        if PURE in cpu:
            record["naive_over_pure"] = spread([a / b for a, b in zip(cpu[NAIVE], cpu[PURE], strict=True)])
    if SPLIT in cpu:
        record["split_minus_fused_ms"] = spread([a - b for a, b in zip(cpu[SPLIT], cpu[FUSED], strict=True)])
    for name, found in engines.items():
        server = name.removesuffix(", saturated")
        label = f"server_over_engine_ms{name.removeprefix(FUSED)}"
        record[label] = spread([a - b["cpu_ms"] for a, b in zip(cpu[server], found, strict=True)])
    return record


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(float(np.median(values)), 3), "least": round(min(values), 3), "most": round(max(values), 3)}


def as_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"
