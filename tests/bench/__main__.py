"""`make bench`: what a request costs, beside the naive build, in one run. `python -m tests.bench [--quick] [--bundle DIR --users DIR]`.

Rounds of ours and of the naive build alternate, so that a noisy neighbour meets both. A made-up bundle of the shop's size is measured, the
released one where `--bundle` names it, and one of a million items. Writes `docs/bench/results.json` and `cpu.svg`.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from serving.system import load_system
from tests.bench.gate import calibration
from tests.bench.measure import Plan, as_json, measure
from tests.bench.report import plot, show
from tests.bench.synthetic import SHOP_ITEMS, Sizes, write_synthetic

MILLION = 1_000_000
SYSTEM = "shop"
METHOD = (
    "CPU: the kernel's CPU clocks of all processes and threads of a subject over the requests it answered, servers on one "
    "core, the client on the others, subjects taking turns in each round; idle_ms, what it spends in as long a time without a "
    "request, is within cpu_ms. Each subject is asked at its rate: ours at the target's 200 a second or what a trial says "
    "keeps the core 60 % busy, fused and split alike, naive at 45 % by the same; core_busy is what "
    "became of it. The engine is asked for the same users at the same rate, and without pauses (saturated). without_pauses: servers "
    "with four requests under way at any moment. open_loop: server and client share all cores, latency from the intended send time, a "
    "new server for each run; open_loop_split: the same of split mode's three."
)
QUICK = Plan(
    rounds=3, requests=400, naive_requests=100, crowd_requests=100, open_seconds=5.0, open_runs=2, steps=(200, 310, 490), million=False
)


def machine() -> dict[str, Any]:
    """What was measured on: core count, CPU model, and how fast it was then: milliseconds of the gate's calibration loop."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    loop = calibration()
    return {"cores": len(models), "cpu": models[0] if models else "unknown", "loop_ms": round(min(loop() for _ in range(5)), 3)}


def run(plan: Plan, bundle: Path | None, users: Path | None, only: str) -> dict[str, Any]:
    """Everything the plan asks for, by catalogue."""
    system = load_system(SYSTEM)
    found: dict[str, Any] = {}
    alone = replace(plan, naive=False, split=False)
    with tempfile.TemporaryDirectory() as work:
        if only in ("", "shop"):
            made, states = write_synthetic(system, Path(work) / "shop", Sizes(users=7_000))
            found[f"synthetic, {SHOP_ITEMS:,} items"] = measure(SYSTEM, made, states, Path(work) / "shop" / "whole", plan)
        if bundle is not None and users is not None:
            found["released bundle"] = measure(SYSTEM, bundle, users, None, alone)
        if only == "million" or (plan.million and not only):
            made, states = write_synthetic(system, Path(work) / "million", Sizes(items=MILLION, users=7_000))
            found[f"synthetic, {MILLION:,} items"] = measure(SYSTEM, made, states, None, alone)
    return {"machine": machine(), "method": METHOD, "catalogues": found}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten, no million items")
    parser.add_argument("--rate", type=float, help="requests a second offered to ours while CPU is counted; default 200")
    parser.add_argument("--naive-rate", type=float, help="the same of the naive build; default: what keeps its core 45 %% busy")
    parser.add_argument("--only", choices=("shop", "million"), default="", help="one of the made-up catalogues")
    parser.add_argument("--bundle", type=Path, help="a released bundle to measure too")
    parser.add_argument("--users", type=Path, help="its StateTable folder")
    parser.add_argument("--out", type=Path, default=Path("docs/bench"))
    given = parser.parse_args()
    plan = QUICK if given.quick else Plan()
    plan = replace(plan, rate=given.rate or plan.rate, naive_rate=given.naive_rate or plan.naive_rate)
    record = run(plan, given.bundle, given.users, given.only)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.json").write_text(as_json(record))
    plot(record, given.out / "cpu.svg")
    show(record, Console(width=140))


if __name__ == "__main__":
    main()
