"""`make bench`: what a request costs, beside the naive build, in one run. `python -m tests.bench [--quick] [--bundle DIR --users DIR]`.

Rounds of ours and of the naive build alternate, so that a noisy neighbour meets both. Without `--bundle` a made-up bundle of the shop's
size is measured; with it the released one as well. Writes `docs/bench/results.json` and `cpu.svg`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from serving.state import StateTable
from serving.system import load_system
from tests.bench.servers import Cost, Subject, cost, naive, ours, split
from tests.bench.synthetic import SHOP_ITEMS, Sizes, write_synthetic

MILLION = 1_000_000
SYSTEM = "shop"


@dataclass(frozen=True)
class Plan:
    """How long each part is measured."""

    rounds: int = 5
    requests: int = 300  # a round, each for another user
    naive_requests: int = 100
    rate: float = 60.0  # offered while CPU is counted: well below what one core can do
    naive_rate: float = 12.0
    open_rate: float = 200.0  # offered while latency is counted
    open_seconds: float = 15.0
    million: bool = True
    split: bool = True


QUICK = Plan(rounds=3, requests=150, naive_requests=40, open_seconds=4.0, million=False, split=True)


class Users:
    """User ids, none asked for twice before all were: no answer comes from a cache."""

    def __init__(self, folder: Path) -> None:
        ids = StateTable.load(folder).user_ids.tolist()
        self._ids = [one.decode() for one in np.random.default_rng(0).permutation(ids)]
        self._at = 0

    def next(self, count: int) -> list[str]:
        taken = [self._ids[(self._at + step) % len(self._ids)] for step in range(count)]
        self._at += count
        return taken


def compare(bundle: Path, users: Path, whole: Path, plan: Plan) -> dict[str, Any]:
    """Ours fused, ours split and the naive build in alternating rounds; then ours alone at the open rate on all cores."""
    asked = Users(users)
    found: dict[str, list[Cost]] = {}
    ready: dict[str, float] = {}
    with _all(bundle, users, whole, plan) as subjects:
        for _ in track(range(plan.rounds), description="rounds", transient=True):
            for subject in subjects:
                slow = subject.name == "naive"
                count, rate = (plan.naive_requests, plan.naive_rate) if slow else (plan.requests, plan.rate)
                found.setdefault(subject.name, []).append(cost(subject, asked.next(count), rate))
                ready[subject.name] = subject.ready_s
    record: dict[str, Any] = {name: _summary(costs, ready[name]) for name, costs in found.items()}
    record["engine"] = engine(bundle, users, plan.requests)
    record["naive_over_ours"] = _ratio(found["naive"], found["ours, fused"])
    if "ours, split" in found:
        record["split_minus_fused_ms"] = round(record["ours, split"]["cpu_ms"] - record["ours, fused"]["cpu_ms"], 3)
    record["server_over_engine_ms"] = round(record["ours, fused"]["cpu_ms"] - record["engine"]["cpu_ms"], 3)
    record["open_loop"] = open_loop(bundle, users, plan)
    return record


@contextmanager
def _all(bundle: Path, users: Path, whole: Path, plan: Plan) -> Iterator[list[Subject]]:
    with ours(SYSTEM, bundle, users) as fused, naive(SYSTEM, bundle, users, whole) as beside:
        if not plan.split:
            yield [fused, beside]
            return
        with split(SYSTEM, bundle, users) as parts:
            yield [fused, beside, parts]


def open_loop(bundle: Path, users: Path, plan: Plan) -> dict[str, float]:
    """Latency at a constant arrival rate, server and client on all cores."""
    with ours(SYSTEM, bundle, users, cores=range(64)) as subject:
        cost(subject, Users(users).next(50), 50.0)
        load = cost(subject, Users(users).next(int(plan.open_rate * plan.open_seconds)), plan.open_rate).load
    figures = {f"p{p}_ms": round(load.percentile(p), 2) for p in (50, 95, 99)}
    return {"rate": plan.open_rate, "answered_per_second": round(load.answered_per_second, 1), **figures}


def engine(bundle: Path, users: Path, count: int) -> dict[str, Any]:
    """The engine in a process of its own, on the server's core."""
    line = [sys.executable, "-m", "tests.bench.engine", "--bundle", str(bundle), "--users", str(users), "--count", str(count)]
    made = subprocess.run(["taskset", "-c", "0", *line], check=True, capture_output=True, text=True)
    return dict(json.loads(made.stdout))


def _summary(costs: list[Cost], ready_s: float) -> dict[str, Any]:
    cpu = [one.cpu_ms for one in costs]
    latencies = np.concatenate([one.load.latencies_ms for one in costs])
    return {
        "cpu_ms": round(float(np.median(cpu)), 3),
        "cpu_ms_range": [round(min(cpu), 3), round(max(cpu), 3)],
        "p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "p99_ms": round(float(np.percentile(latencies, 99)), 2),
        "rss_mb": round(costs[-1].rss_mb, 0),
        "ready_s": round(ready_s, 2),
    }


def _ratio(slow: list[Cost], fast: list[Cost]) -> dict[str, float]:
    """Median and range of the ratios of rounds run side by side."""
    ratios = [a.cpu_ms / b.cpu_ms for a, b in zip(slow, fast, strict=True)]
    return {"median": round(float(np.median(ratios)), 2), "least": round(min(ratios), 2), "most": round(max(ratios), 2)}


def machine() -> dict[str, Any]:
    """What was measured on: core count and CPU model, nothing else."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cores": len(models), "cpu": models[0] if models else "unknown"}


def run(plan: Plan, bundle: Path | None, users: Path | None) -> dict[str, Any]:
    """Everything the plan asks for, by catalogue."""
    system = load_system(SYSTEM)
    record: dict[str, Any] = {"machine": machine(), "catalogues": {}}
    with tempfile.TemporaryDirectory() as work:
        made, states = write_synthetic(system, Path(work) / "shop", Sizes(users=6_000))
        whole = Path(work) / "shop" / "whole"
        record["catalogues"][f"synthetic, {SHOP_ITEMS:,} items"] = compare(made, states, whole, plan)
        if bundle is not None and users is not None:
            record["catalogues"]["released bundle"] = alone(bundle, users, plan)
        if plan.million:
            made, states = write_synthetic(system, Path(work) / "million", Sizes(items=MILLION, users=3_000))
            record["catalogues"][f"synthetic, {MILLION:,} items"] = alone(made, states, plan)
    return record


def alone(bundle: Path, users: Path, plan: Plan) -> dict[str, Any]:
    """Ours only: cost and latency."""
    asked = Users(users)
    with ours(SYSTEM, bundle, users) as subject:
        costs = [cost(subject, asked.next(plan.requests), plan.rate) for _ in range(plan.rounds)]
        ready = subject.ready_s
    return {
        "ours, fused": _summary(costs, ready),
        "engine": engine(bundle, users, plan.requests),
        "open_loop": open_loop(bundle, users, plan),
    }


def show(record: dict[str, Any], console: Console) -> None:
    """The record as tables."""
    console.print(f"{record['machine']['cores']} cores, {record['machine']['cpu']}")
    for name, found in record["catalogues"].items():
        table = Table("", "CPU ms a request", "range", "p50 ms", "p99 ms", "RSS MB", "ready s", title=name, title_justify="left")
        for subject in ("ours, fused", "ours, split", "naive"):
            if subject in found:
                one = found[subject]
                low, high = one["cpu_ms_range"]
                figures = (one["cpu_ms"], f"{low} - {high}", one["p50_ms"], one["p99_ms"], one["rss_mb"], one["ready_s"])
                table.add_row(subject, *map(str, figures))
        console.print(table)
        for key in ("naive_over_ours", "split_minus_fused_ms", "server_over_engine_ms", "engine", "open_loop"):
            if key in found:
                console.print(f"  {key.replace('_', ' ')}: {found[key]}")


def plot(record: dict[str, Any], file: Path) -> None:
    """CPU a request, a bar each, as SVG with fixed ids (the same record gives the same bytes)."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "shortlist"
    from matplotlib import pyplot

    bars = [
        (f"{subject}\n{name.split(', ')[-1]}", found[subject]["cpu_ms"], found[subject]["cpu_ms_range"])
        for name, found in record["catalogues"].items()
        for subject in ("ours, fused", "ours, split", "naive")
        if subject in found
    ]
    figure, axes = pyplot.subplots(figsize=(7, 0.6 * len(bars) + 1.2))
    values = np.array([value for _, value, _ in bars])
    spread = np.array([[value - low, high - value] for _, value, (low, high) in bars]).T
    colours = ["#b0b0b0" if label.startswith("naive") else "#2a6f97" for label, _, _ in bars]
    axes.barh([label for label, _, _ in bars], values, xerr=spread, color=colours, height=0.6)
    for at, value in enumerate(values):
        axes.text(value, at - 0.38, f" {value:.2f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds a request (median of rounds, range)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten, no million items")
    parser.add_argument("--bundle", type=Path, help="a released bundle to measure too")
    parser.add_argument("--users", type=Path, help="its StateTable folder")
    parser.add_argument("--out", type=Path, default=Path("docs/bench"))
    given = parser.parse_args()
    record = run(QUICK if given.quick else Plan(), given.bundle, given.users)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(record, given.out / "cpu.svg")
    show(record, Console())


if __name__ == "__main__":
    main()
