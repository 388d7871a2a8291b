"""`shortlist sync | promote | rollback | history`: which bundle answers, and who decides."""

from pathlib import Path
from typing import Annotated

import typer

SystemName = Annotated[str, typer.Argument(help="name of a system, or path of a system file ending in .py", show_default=False)]
Home = Annotated[Path, typer.Option(help="where results, bundles and the registry are kept")]
HOME = Path(".shortlist")
Registry = Annotated[
    str,
    typer.Option("--registry", envvar="SHORTLIST_REGISTRY", help="MLflow's address; default: a file under the home", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Give the program these commands."""
    for command in (sync, promote, rollback, history, clean, schedule):
        app.command()(command)


def sync(
    system: SystemName,
    watch: Annotated[bool, typer.Option("--watch", help="go on until stopped")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks with --watch")] = 2.0,
    registry: Registry = "",
    home: Home = HOME,
) -> None:
    """Have the registry's champion answer: fetch its bundle, prove it, and point servers at it."""
    import signal
    from threading import Event

    from components.release.sync import Reconciler
    from components.release.sync import sync as once
    from serving.system import load_system

    if not watch:
        typer.echo(once(load_system(system), home, registry).sentence)
        return
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    Reconciler(load_system(system), home, registry).watch(every, stop, lambda sentence: typer.echo(sentence))


def promote(
    system: SystemName,
    version: Annotated[str, typer.Argument(help="a version's number, or the beginning of a bundle's digest; default: the challenger")] = "",
    registry: Registry = "",
    home: Home = HOME,
) -> None:
    """Make a version the champion: it answers from now on."""
    from components.release.promotion import promote as work
    from serving.system import load_system

    typer.echo(work(load_system(system), home, registry, version))


def rollback(system: SystemName, registry: Registry = "", home: Home = HOME) -> None:
    """Make the version champion that was it before."""
    from components.release.promotion import rollback as work
    from serving.system import load_system

    typer.echo(work(load_system(system), home, registry))


def history(system: SystemName, registry: Registry = "", home: Home = HOME) -> None:
    """List the versions: how each was judged, which was champion when, and which answers here."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from components.release.promotion import history as work
    from serving.system import load_system

    table = Table("version", "bundle", "registered", "aliases", "champion since", "answers here", "judged")
    for line in work(load_system(system), home, registry):
        registered = f"{datetime.fromtimestamp(line.registered_ms / 1e3, UTC):%Y-%m-%d %H:%M}"
        aliases, answers = ", ".join(line.aliases), "yes" if line.answers else ""
        table.add_row(line.version, line.bundle[:12], registered, aliases, line.since[:16].replace("T", " "), answers, line.sentence)
    Console().print(table)


def clean(
    keep: Annotated[int, typer.Option(min=0, help="runs to keep, with everything they need")] = 3,
    home: Home = HOME,
) -> None:
    """Take away what neither a release nor the last runs need."""
    from pipelines.clean import clean as work

    done = work(home, keep)
    typer.echo(f"{done.folders} folders taken away, {done.freed_bytes / 1e6:,.1f} MB freed; {done.kept_runs} runs and what answers stay.")


def schedule(
    system: SystemName,
    daily: Annotated[str, typer.Option("--daily", help="every day at this time of this machine: from the champion's weights")] = "03:00",
    weekly: Annotated[str, typer.Option("--weekly", help="in full on these days, like sun or mon,thu")] = "sun",
    data: Annotated[Path | None, typer.Option(help="folder with your own tables", show_default=False)] = None,
    registry: Registry = "",
    home: Home = HOME,
) -> None:
    """Print the lines for cron that train this system again, one training at a time."""
    from pipelines.schedule import cron_lines
    from serving.system import load_system

    load_system(system)  # refuses a system that is not there
    options = [*(("--data", str(data.resolve())) if data else ()), *(("--registry", registry) if registry else ())]
    system = str(Path(system).resolve()) if system.endswith(".py") else system
    for line in cron_lines(system, daily, weekly, home, options, Path.cwd()):
        typer.echo(line)


def consult(system: str, home: Path, bundle: Path | None, registry: str) -> None:
    """Before a command answers: whom the registry names. What is wrong is said, and what answered so far answers."""
    from components.release.sync import consult as work
    from serving.system import load_system

    if bundle is None and (problem := work(load_system(system), home, registry)):
        typer.echo(problem, err=True)
