"""`shortlist drift`: the verdict on what is served now, on the screen, in files, in MLflow, and as the command's exit code."""

import json
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from components.data.served import collect, log_of
from components.features.moments import parse_moment
from components.monitoring.drift import drift
from components.monitoring.verdict import EXIT_CODES, Verdict
from components.release.drift_record import record_drift
from components.release.releases import released
from serving.system import load_system

_CAUSES = 10  # shown on the screen


class NoTables(ValueError):
    """There is nothing to compare with."""


def run_drift(system: str, since: str, until: str, home: Path, events: str = "", registry: str = "") -> None:
    """Print the verdict and end with its exit code: 0 none, 2 drift, 3 cannot judge."""
    out = home / "drift" / load_system(system).name / "latest"
    verdict = verdict_of(system, home, out, _moment(since, "--since"), _moment(until, "--until"), events)
    record_drift(load_system(system), verdict, out, home, registry)
    _print(verdict, out)
    raise typer.Exit(EXIT_CODES[verdict["verdict"]])


def verdict_of(
    system: str, home: Path, out: Path, since: datetime | None = None, until: datetime | None = None, events: str = ""
) -> Verdict:
    """The verdict on the champion under `home`; its files under `out`. `events`: the server's log, else the one under home."""
    loaded, found = load_system(system), released(system, home)
    url = events or log_of(system, home)
    served = collect(url, out / "served") if url else None
    return drift(loaded, found.bundle, found.users, accepted_tables(system, home), served, out, since, until)


def accepted_tables(system: str, home: Path) -> Path:
    """The tables accepted last under this home. Raises `NoTables`."""
    note = home / "accepted" / f"{load_system(system).name}.json"
    if not note.is_file():
        raise NoTables(f"no tables of {system} were accepted under {home}: run `shortlist train {system}` first")
    folder = home / str(json.loads(note.read_text())["accepted"])
    if not folder.is_dir():
        raise NoTables(f"the tables accepted last, {folder}, are gone: run `shortlist train {system}` again")
    return folder


def _moment(text: str, option: str) -> datetime | None:
    try:
        return parse_moment(text) if text else None
    except ValueError as problem:
        raise NoTables(f"{option} {text!r} is no moment: write it like 2017-11-27 or 2017-11-27T06:00:00+00:00") from problem


def _print(verdict: Verdict, out: Path) -> None:
    console = Console()
    console.print(verdict["sentence"], soft_wrap=True, highlight=False)
    if verdict["causes"]:
        table = Table("column", "kind", "p", "effect", "what")
        for cause in verdict["causes"][:_CAUSES]:
            table.add_row(cause["column"], cause["kind"], f"{cause['adjusted']:.2g}", f"{cause['effect']:.3f}", cause["note"])
        console.print(table)
    console.print(f"Verdict: {out / 'verdict.json'}", soft_wrap=True, highlight=False)
