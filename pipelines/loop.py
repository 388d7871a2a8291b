"""`shortlist train` and `shortlist pipeline run`: run the loop with its progress shown, then say what came of it."""

import json
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from components.data.accepted import remember
from components.data.served import log_of
from components.ranking.dead import sentence
from components.start import known_mode
from pipelines.runner import Arguments, Run, Runner, run_pipeline
from serving.system import load_system


class NoServedLog(ValueError):
    """There is no log of a server to learn from."""


class NoData(ValueError):
    """The folder given with --data is not there."""


def run_loop(
    system: str,
    data: Path | None,
    until: str,
    fast: bool,
    seed: int,
    home: Path,
    *,
    refit: bool = False,
    accept: bool = False,
    runner: Runner = "process",
    with_served: bool | None = None,
    events: str = "",
    registry: str = "",
    mode: str = "full",
) -> Run:
    """Run the training pipeline, print the steps, the verdict and what answers now. Exits 1 when the gate refused the bundle.

    `with_served`: learn from what was served, too; None: where a server's log is under `home`. `events`: that log, if it is elsewhere.
    `registry`: MLflow's address; empty: the file under `home`. `mode`: "full", or "daily": from the champion's weights.
    """
    from pipelines.training import training

    if data is not None and not data.is_dir():
        raise NoData(f"--data {data} is no folder: give one with events.parquet, items.parquet, users.parquet and context.parquet")
    load_system(system)  # refuses a system that is not there before anything starts
    arguments: Arguments = {
        "system": str(Path(system).resolve()) if system.endswith(".py") else system,
        "data": str(data.resolve()) if data else "",
        "until": until,
        "fast": fast,
        "seed": seed,
        "events": served_log(system, home, with_served, events),
        "tracking": registry,
        "accept": accept,
        "mode": known_mode(mode),
    }
    run = _watched(training, arguments, runner, home)
    _print_steps(run)
    for note in _notes(run):
        Console().print(note, soft_wrap=True, highlight=False)
    verdict = json.loads((run.output("gate") / "gate.json").read_text())
    version = json.loads((run.output("register" if verdict["passed"] else "record") / "version.json").read_text())
    Console().print(verdict["sentence"], soft_wrap=True, highlight=False)
    _print_version(version, home)
    if not refit or not verdict["passed"]:
        print_served(system, version, home)
    if not verdict["passed"]:
        raise typer.Exit(1)
    remember(str(arguments["system"]), str(home.resolve()), str(arguments["data"]), run.output("served"), run.output("validate"))
    if refit:
        _refit({**arguments, "judged": version["bundle"]}, runner, home)
    return run


def run_materialize(
    system: str,
    data: Path | None,
    until: str,
    home: Path,
    *,
    online: str = "",
    accept: bool = False,
    with_served: bool | None = None,
    events: str = "",
) -> Run:
    """Fill Feast's online store and say as of when. `online`: its address; empty: the file that servers under `home` read."""
    from pipelines.training import freshen
    from serving.worker.options import online_file

    if data is not None and not data.is_dir():
        raise NoData(f"--data {data} is no folder: give one with events.parquet, items.parquet, users.parquet and context.parquet")
    load_system(system)
    arguments: Arguments = {
        "system": str(Path(system).resolve()) if system.endswith(".py") else system,
        "online": online or f"sqlite:{online_file(home.resolve(), Path(system).stem)}",
        "data": str(data.resolve()) if data else "",
        "until": until,
        "events": served_log(system, home, with_served, events),
        "accept": accept,
    }
    run = _watched(freshen, arguments, "process", home)
    done = json.loads((run.output("materialize") / "online.json").read_text())
    said = "hold what was known at" if done["written"] else "already hold what was known after"
    Console().print(f"Users' features at {arguments['online']} {said} {done['until']}.", soft_wrap=True, highlight=False)
    return run


def served_log(system: str, home: Path, with_served: bool | None, events: str = "") -> str:
    """The address of the server's log to learn from; empty: none. Raises `NoServedLog` when one is asked for and there is none."""
    if with_served is False:
        return ""
    found = events or log_of(system, home)
    if with_served and not found:
        raise NoServedLog(f"nothing was served of {system} under {home}: start `shortlist serve {system}`, or give --events dir:PATH")
    return found


def _notes(run: Run) -> list[str]:
    """What the data gate let pass with a word, and features that nothing could be learnt from."""
    ranking = json.loads((run.output("ranking") / "ranking.json").read_text())
    dead = sentence(ranking["features"], ranking["dead"])
    return [*json.loads((run.output("validate") / "report.json").read_text())["notes"], *([dead] if dead else [])]


def _refit(arguments: Arguments, runner: Runner, home: Path) -> None:
    """Learn once more from all rows, and let that take the judged bundle's place."""
    from pipelines.training import refit

    run = _watched(refit, {name: value for name, value in arguments.items() if name != "until"}, runner, home)
    _print_steps(run)
    version = json.loads((run.output("adopt") / "version.json").read_text())
    _print_version(version, home)
    print_served(str(arguments["system"]), version, home)


def _watched(pipeline: object, arguments: Arguments, runner: Runner, home: Path) -> Run:
    """Run it under a progress bar: which step, how many of how many, since when. Where stderr is no terminal: a line an event."""
    console = Console(file=sys.stderr)  # this very stream: the steps' own output goes to the log
    if not console.is_terminal:
        return run_pipeline(pipeline, arguments, runner, home, lambda line: console.print(line, soft_wrap=True, highlight=False))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        bar = progress.add_task("starting", total=len(pipeline.pipeline_spec.root.dag.tasks))  # type: ignore[attr-defined]

        def show(line: str) -> None:
            event = dict(field.partition("=")[::2] for field in line.split())
            ended = event["state"] in ("done", "resumed")
            progress.update(bar, description=event["step"], advance=1 if ended else 0)

        return run_pipeline(pipeline, arguments, runner, home, show)


def _print_steps(run: Run) -> None:
    table = Table("step", "rows in", "rows out", "set aside", "seconds")
    for step in run.steps:
        rows = step["rows"]
        seconds = "kept" if step["resumed"] else f"{step['seconds']:.1f}"
        table.add_row(step["step"], *(f"{rows[kind]:,}" for kind in ("in", "out", "set_aside")), seconds)
    Console().print(table)
    Console().print(f"Log: {run.folder / 'log.txt'}", soft_wrap=True, highlight=False)


def _print_version(version: dict[str, Any], home: Path) -> None:
    console = Console()
    if version["version"]:
        aliases = ", ".join(version["aliases"]) or "no alias"
        console.print(f"Registered as {version['name']} version {version['version']} ({aliases}).", soft_wrap=True, highlight=False)
    console.print(f"Bundle: {home / 'bundles' / str(version['bundle'])}", soft_wrap=True, highlight=False)


def print_served(system: str, version: dict[str, Any], home: Path) -> None:
    """What answers now under this home, and how to change that."""
    from components.release.releases import chosen

    name, digest = load_system(system).name, str(version["bundle"])
    served = chosen(name, home)
    if served == digest:
        said = f"This bundle answers: `shortlist serve {system}`. `shortlist rollback {system}` goes back to the one before."
    elif served is None:
        said = f"Nothing answers for {name} yet."
    elif version["version"]:
        said = f"Bundle {served[:12]} still answers. `shortlist promote {system}` has this one answer; all: `shortlist history {system}`."
    else:
        said = f"Bundle {served[:12]} still answers."
    Console().print(" ".join([said, version.get("remark", "")]).strip(), soft_wrap=True, highlight=False)
