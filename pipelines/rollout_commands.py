"""`shortlist rollout …`: what a person asks for (start to history), and what runs on the cluster (control, webhook, follow)."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.release_commands import HOME, Home, Registry, SystemName

app = typer.Typer(no_args_is_help=True, help="A new bundle, step by step, on a cluster.")
Namespace = Annotated[str, typer.Option(help="of the InferenceServices", show_default="the pod's own, or the context's")]
Why = Annotated[str, typer.Option(help="for the record")]


@app.command()
def start(
    system: SystemName,
    version: Annotated[str, typer.Argument(help="a version's number, or the beginning of a bundle's digest; default: the challenger")] = "",
    registry: Registry = "",
    home: Home = HOME,
    namespace: Namespace = "",
) -> None:
    """Ask for a rollout of a version; the controller begins it within seconds."""
    from components.release.promotion import chosen_digest
    from pipelines.rollout_cluster import asked
    from serving.system import load_system

    digest = chosen_digest(load_system(system), home, registry, version)
    typer.echo(asked(system, namespace, "start", digest))


@app.command()
def status(system: SystemName, namespace: Namespace = "") -> None:
    """Say which bundle answers whom, and what is waited for."""
    from pipelines.rollout_cluster import status as work

    typer.echo(work(system, namespace))


@app.command()
def pause(system: SystemName, namespace: Namespace = "") -> None:
    """Go no further for now; a breach still leads back."""
    from pipelines.rollout_cluster import asked

    typer.echo(asked(system, namespace, "pause"))


@app.command()
def resume(system: SystemName, namespace: Namespace = "") -> None:
    """Go on after a pause."""
    from pipelines.rollout_cluster import asked

    typer.echo(asked(system, namespace, "resume"))


@app.command()
def abort(system: SystemName, why: Why = "a person's decision", namespace: Namespace = "") -> None:
    """Withdraw the new bundle: the old one answers everybody again."""
    from pipelines.rollout_cluster import asked

    typer.echo(asked(system, namespace, "abort", why))


@app.command()
def undo(system: SystemName, namespace: Namespace = "") -> None:
    """Take a promotion back at once, while the old bundle is still warm."""
    from pipelines.rollout_cluster import asked

    typer.echo(asked(system, namespace, "undo"))


@app.command()
def history(system: SystemName, namespace: Namespace = "") -> None:
    """List what was decided, and why."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from pipelines.rollout_cluster import lines

    table = Table("when", "rollout", "phase", "%", "what")
    for line in lines(system, namespace):
        table.add_row(
            f"{datetime.fromtimestamp(line.at, UTC):%Y-%m-%d %H:%M:%S}", line.rollout, line.phase, str(line.percent), line.sentence
        )
    Console().print(table)


@app.command()
def control(
    system: SystemName,
    prometheus: Annotated[str, typer.Option(help="its address: figures by bundle", show_default=False)],
    recommender: Annotated[str, typer.Option(help="its address: asked before users are", show_default=False)],
    feedback: Annotated[
        Path | None, typer.Option(help="the recommender's folder; without it clicks are not judged", show_default=False)
    ] = None,
    step_seconds: Annotated[float, typer.Option(min=1.0, help="each step's shortest time")] = 600.0,
    step_requests: Annotated[int, typer.Option(min=1, help="answers of the new bundle each step takes at least")] = 500,
    judge_seconds: Annotated[float, typer.Option(min=0.0, help="that the last step waits for clicks enough to judge by")] = 86_400.0,
    grace_seconds: Annotated[float, typer.Option(min=0.0, help="that the old bundle stays warm")] = 86_400.0,
    port: Annotated[int, typer.Option(help="of /metrics")] = 9100,
    registry: Registry = "",
    home: Home = HOME,
    namespace: Namespace = "",
) -> None:
    """Be the controller: look, decide, write it down, do it; until stopped."""
    from components.release.rollout_state import RolloutPolicy
    from pipelines.rollout_cluster import control as work

    policy = RolloutPolicy(step_seconds=step_seconds, step_requests=step_requests, judge_seconds=judge_seconds, grace_seconds=grace_seconds)
    work(system, namespace, home, registry, prometheus, recommender, feedback, policy, port)


@app.command()
def webhook(
    system: SystemName,
    secret: Annotated[str, typer.Option(envvar="SHORTLIST_WEBHOOK_SECRET", help="the webhook's in MLflow", show_default=False)],
    port: Annotated[int, typer.Option(help="port to listen on")] = 8090,
    namespace: Namespace = "",
) -> None:
    """Take MLflow's notices of moved aliases: POST /mlflow."""
    from pipelines.rollout_cluster import webhook as work

    work(system, namespace, secret, port)


@app.command()
def follow(
    system: SystemName,
    into: Annotated[Path, typer.Option(help="folder for the release file and the bundles", show_default=False)],
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks")] = 1.0,
    namespace: Namespace = "",
) -> None:
    """Beside a recommender: what the InferenceServices say, as the release file it follows."""
    from pipelines.rollout_cluster import follow as work

    work(system, namespace, into, every)
