"""The watch's steps on a laptop: the verdict of `shortlist drift`, the loop of `shortlist train`, the champion's alias.

shortlist watch shop --once
"""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from components.data.served import collect, log_of
from components.release.drift_record import record_drift
from components.release.promotion import promote as promote_bundle
from pipelines.drift import verdict_of
from pipelines.runner import run_pipeline
from pipelines.watch import DRIFT, Entry, Policy, Steps, resume, watch_once
from serving.system import load_system


def watch(
    system: str,
    data: Path | None,
    fast: bool,
    seed: int,
    home: Path,
    *,
    once: bool,
    every_hours: float,
    policy: Policy,
    promote_passed: bool,
    go_on: bool = False,
) -> Entry:
    """Watch once, or for ever, every so many hours; the last entry of the journal."""
    folder = home / "watch" / load_system(system).name
    if go_on:
        resume(folder)
    steps = laptop_steps(system, data, fast, seed, home, folder, promote_passed=promote_passed)
    while True:
        entry = watch_once(steps, policy, folder)
        Console().print(said(entry), soft_wrap=True, highlight=False)
        if once:
            return entry
        time.sleep(timedelta(hours=every_hours).total_seconds())


def laptop_steps(system: str, data: Path | None, fast: bool, seed: int, home: Path, folder: Path, *, promote_passed: bool) -> Steps:
    """What a cycle is made of here. `promote_passed`: a bundle that passed the gate answers; else a person promotes it."""
    loaded = load_system(system)
    name = str(Path(system).resolve()) if system.endswith(".py") else system

    def verdict() -> Entry:
        found = verdict_of(system, home, folder / "latest")
        record_drift(loaded, found, folder / "latest", home)
        return found

    def prepare(cycle: str) -> Entry:
        url = log_of(system, home)
        copy = f"still:{collect(url, folder / cycle / 'served').resolve()}" if url else ""
        return {"system": name, "data": str(data.resolve()) if data else "", "until": "", "fast": fast, "seed": seed, "events": copy}

    def promote(trained: Entry) -> bool:
        if promote_passed:
            promote_bundle(load_system(system), home, which=str(trained["bundle"]))
        return promote_passed

    return Steps(verdict, prepare, _trainer(home), promote, lambda why: _alert(folder, why))


def _trainer(home: Path) -> Callable[[Entry], Entry]:
    def train(arguments: Entry) -> Entry:
        from pipelines.training import training

        run = run_pipeline(training, arguments, "process", home)
        gate = json.loads((run.output("gate") / "gate.json").read_text())
        version = json.loads((run.output("register" if gate["passed"] else "record") / "version.json").read_text())
        return {"bundle": version["bundle"], "version": version["version"], "passed": gate["passed"], "gate": gate["sentence"]}

    return train


def _alert(folder: Path, why: str) -> None:
    """Where a person and Prometheus' textfile collector look."""
    (folder / "alert.txt").write_text(why + "\n")
    (folder / "watch.prom").write_text("# TYPE shortlist_watch_stopped gauge\nshortlist_watch_stopped 1\n")


def said(entry: dict[str, Any]) -> str:
    """An entry of the journal as a sentence."""
    if entry["what"] == "settled":
        ended = "answers now" if entry["promoted"] else "waits for a person to promote it" if entry["passed"] else "was refused by the gate"
        return f"Retrained: bundle {entry['bundle'][:12]} {ended}."
    waits = f" Not retrained: {entry['waits']}." if entry["verdict"] == DRIFT and entry["waits"] else ""
    return f"{entry['sentence']}{waits}"
