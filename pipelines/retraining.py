"""The watch's steps on a laptop: the verdict of `shortlist drift`, the loop of `shortlist train`, the champion's alias.

shortlist watch shop --once
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from components.data.accepted import remember
from components.data.served import collect, log_of
from components.home import HomeInUse
from components.release.drift_record import record_drift
from components.release.fetch import NotFetched
from components.release.promotion import promote as promote_bundle
from components.release.registry import RegistryUnavailable
from components.release.sync import consult
from pipelines.drift import verdict_of
from pipelines.errors import foreseen
from pipelines.runner import run_pipeline
from pipelines.watch import DRIFT, Entry, Policy, RetrainingRefused, Steps, WatchStopped, resume, watch_once
from serving.system import load_system

MAY_PASS = (RegistryUnavailable, NotFetched, HomeInUse)  # another day the same retraining may do


class TrainerDied(ValueError):
    """The process that trained ended without a word."""


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
    promote: str = "",
    go_on: bool = False,
    registry: str = "",
) -> Entry:
    """Watch once, or for ever, every so many hours; the last entry of the journal. `promote`: "passed", "by hand", or as the system says.

    For ever: what may pass (a registry that is down, a trainer that died, a disk that is full) is said, and tried again at the next look.
    """
    folder = home / "watch" / load_system(system).name
    if go_on:
        resume(folder)
    steps = laptop_steps(system, data, fast, seed, home, folder, promote=promote, registry=registry)
    while True:
        try:
            entry = watch_once(steps, policy, folder)
            _say(said(entry))
        except (ValueError, OSError) as problem:  # a full disk passes, too
            if once or isinstance(problem, WatchStopped) or not (isinstance(problem, OSError) or foreseen(problem)):
                raise
            _say(f"{problem}. The watch looks again in {every_hours:g} hours.")
        if once:
            return entry
        time.sleep(timedelta(hours=every_hours).total_seconds())


def laptop_steps(
    system: str, data: Path | None, fast: bool, seed: int, home: Path, folder: Path, *, promote: str = "", registry: str = ""
) -> Steps:
    """What a cycle is made of here. `promote`: "passed" has a bundle that passed the gate answer; else a person does."""
    loaded = load_system(system)
    name = str(Path(system).resolve()) if system.endswith(".py") else system
    at_once = (promote or loaded.promote) == "passed"

    def verdict() -> Entry:
        if problem := consult(loaded, home, registry):  # the champion may have been moved elsewhere
            _say(problem)
        found = verdict_of(system, home, folder / "latest")
        record_drift(loaded, found, folder / "latest", home, registry)
        return found

    def prepare(cycle: str, found: Entry) -> Entry:
        url = log_of(system, home)
        copy = f"still:{collect(url, folder / cycle / 'served').resolve()}" if url else ""
        where = {"system": name, "data": str(data.resolve()) if data else "", "tracking": registry}
        return {**where, "until": middle_of(found["window"]), "fast": fast, "seed": seed, "events": copy}

    def carry_over(trained: Entry) -> bool:
        if at_once:
            promote_bundle(loaded, home, registry, str(trained["bundle"]))
        return at_once

    return Steps(verdict, prepare, lambda arguments: _apart(arguments, home), carry_over, lambda why: _alert(folder, why))


def middle_of(window: list[str]) -> str:
    """The cut of a retraining: the midnight that halves the drifted window. Its older half is learnt from, its newer half judges.

    A cut before the window would learn nothing of what changed. Empty, for the usual cut, where the window is too short to be halved.
    """
    since, until = (datetime.fromisoformat(moment) for moment in window)
    days = (until - since).days
    return (until - timedelta(days=days // 2)).isoformat() if days >= 2 else ""


def _apart(arguments: Entry, home: Path) -> Entry:
    """Train in a process of its own: its memory goes back, and one that is killed does not take the watcher along. Raises `TrainerDied`."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_name_main) as pool:
            return pool.submit(train, arguments, home).result()
    except BrokenProcessPool as problem:
        raise TrainerDied("the training's process was killed; what it finished is kept, and the next look goes on from there") from problem


def _name_main() -> None:
    """Give this process's main module a file: without one, as under `python -m`, pyspark takes it for a doctest and ends the process."""
    vars(sys.modules["__main__"]).setdefault("__file__", __file__)


def train(arguments: Entry, home: Path) -> Entry:
    """The whole training; what came of it. Raises `RetrainingRefused` where the data do not allow it, `ValueError` for what may pass."""
    from pipelines.training import training

    try:
        run = run_pipeline(training, arguments, "process", home)
    except ValueError as problem:
        if isinstance(problem, MAY_PASS) or not foreseen(problem):
            raise
        raise RetrainingRefused(str(problem)) from problem
    gate = json.loads((run.output("gate") / "gate.json").read_text())
    version = json.loads((run.output("register" if gate["passed"] else "record") / "version.json").read_text())
    if gate["passed"]:
        where = str(arguments["system"]), str(home.resolve()), str(arguments["data"])
        remember(*where, run.output("served"), run.output("validate"))
    return {"bundle": version["bundle"], "version": version["version"], "passed": gate["passed"], "gate": gate["sentence"]}


def _say(sentence: str) -> None:
    Console().print(sentence, soft_wrap=True, highlight=False)


def _alert(folder: Path, why: str) -> None:
    """Where a person and Prometheus' textfile collector look."""
    (folder / "alert.txt").write_text(why + "\n")
    (folder / "watch.prom").write_text("# TYPE shortlist_watch_stopped gauge\nshortlist_watch_stopped 1\n")


def said(entry: dict[str, Any]) -> str:
    """An entry of the journal as a sentence."""
    if entry["what"] == "settled":
        if not entry["bundle"]:
            return f"Could not retrain: {entry['gate']}"
        ended = "answers now" if entry["promoted"] else "waits for a person to promote it" if entry["passed"] else "was refused by the gate"
        return f"Retrained: bundle {entry['bundle'][:12]} {ended}."
    waits = f" Not retrained: {entry['waits']}." if entry["verdict"] == DRIFT and entry["waits"] else ""
    return f"{entry['sentence']}{waits}"
