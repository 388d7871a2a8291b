"""The command line: `shortlist --help`. A command says what it does in its first line; the work is elsewhere.

Everything heavy is imported inside the command that uses it: help is there at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines import bundles, release_commands, rollout_commands
from pipelines.errors import one_paragraph
from pipelines.release_commands import Registry, consult


class Commands(TyperGroup):
    """Commands whose foreseen errors are one paragraph and whose faults leave a log file."""

    def invoke(self, ctx: Any) -> Any:
        with one_paragraph():
            return super().invoke(ctx)


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, help="From a log of events to short, good lists.")
pipeline = typer.Typer(no_args_is_help=True, help="The learning loop as a Kubeflow pipeline.")
app.add_typer(pipeline, name="pipeline")
app.add_typer(bundles.app, name="bundle")
app.add_typer(rollout_commands.app, name="rollout")
release_commands.add_to(app)

System = Annotated[str, typer.Argument(help="name of a system, or path of a system file ending in .py", show_default=False)]
Home = Annotated[Path, typer.Option(help="where results, bundles and the registry are kept")]
HOME = Path(".shortlist")
Data = Annotated[Path | None, typer.Option(help="folder with your own events, items, users and context .parquet", show_default=False)]
Until = Annotated[str, typer.Option(help="learn from rows before this, judge on the week after; default: a week before the last row")]
Fast = Annotated[bool, typer.Option("--fast", help="fewer cuts, smaller models")]
Accept = Annotated[bool, typer.Option("--accept", help="take the data whatever the last ones of their source were")]
Seed = Annotated[int, typer.Option(help="of everything random")]
WithServed = Annotated[
    bool | None,
    typer.Option("--with-served/--without-served", help="learn from served events, too; default: where a server's log is under home"),
]
Events = Annotated[str, typer.Option(help="the server's log, dir:PATH or kafka://HOST:PORT/TOPIC; default: the one under home")]
Bundle = Annotated[Path | None, typer.Option(help="a bundle's folder instead of the champion", show_default=False)]


@app.command()
def train(
    system: System,
    data: Data = None,
    until: Until = "",
    fast: Fast = False,
    seed: Seed = 0,
    home: Home = HOME,
    refit: Annotated[bool, typer.Option("--refit", help="once judged, learn again from all rows and release that")] = False,
    with_served: WithServed = None,
    events: Events = "",
    registry: Registry = "",
    mode: Annotated[str, typer.Option(help="full; daily: from the champion's weights, with the last target's days")] = "full",
    alone: Annotated[bool, typer.Option("--alone", help="not while another training with --alone is at work")] = False,
    accept: Accept = False,
) -> None:
    """Run the whole loop in this process and register the bundle. What is already done is not done again."""
    from contextlib import nullcontext

    from components.home import one_training
    from pipelines.loop import run_loop

    with one_training(home, Path(system).stem) if alone else nullcontext():
        run_loop(
            system,
            data,
            until,
            fast,
            seed,
            home,
            refit=refit,
            accept=accept,
            runner="process",
            with_served=with_served,
            events=events,
            registry=registry,
            mode=mode,
        )


@app.command()
def materialize(
    system: System,
    data: Data = None,
    until: Annotated[str, typer.Option(help="as of this moment; default: the end of the last day with rows")] = "",
    online: Annotated[str, typer.Option(help="Feast's online store, sqlite:PATH or redis://HOST:PORT/DB; default: under home")] = "",
    home: Home = HOME,
    with_served: WithServed = None,
    events: Events = "",
    accept: Accept = False,
) -> None:
    """Write what is known of users now into Feast's online store: the next answer carries it, without a release."""
    from pipelines.loop import run_materialize

    run_materialize(system, data, until, home, online=online, accept=accept, with_served=with_served, events=events)


@app.command()
def check(system: System, data: Data = None, until: Until = "") -> None:
    """Say in seconds what the system can and cannot use of these tables. Learns nothing; exits 1 when it could not."""
    from pipelines.check import check as work

    work(system, data, until)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="of the system, and of its file", show_default=False)],
    data: Annotated[
        Path, typer.Option(help="folder with your events, items and, where you have them, users and context", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="folder to write the system file into")] = Path("."),
) -> None:
    """Write a system file that fits these tables and trains without an edit."""
    from pipelines.new import new as work

    work(name, data, out)


@pipeline.command("run")
def pipeline_run(
    system: System,
    runner: Annotated[str, typer.Option(help="subprocess: a process a step; docker: a container a step")] = "subprocess",
    data: Data = None,
    until: Until = "",
    fast: Fast = False,
    seed: Seed = 0,
    home: Home = HOME,
    accept: Accept = False,
) -> None:
    """Run the loop as the Kubeflow pipeline it is, on this machine."""
    from pipelines.loop import run_loop

    if runner not in ("subprocess", "docker"):
        raise typer.BadParameter(f"{runner!r} is no runner: choose subprocess or docker", param_hint="--runner")
    run_loop(system, data, until, fast, seed, home, accept=accept, runner="docker" if runner == "docker" else "subprocess")


@pipeline.command("compile")
def pipeline_compile(
    system: System,
    out: Annotated[Path, typer.Argument(help="the YAML to write", show_default=False)],
    image: Annotated[str, typer.Option(help="the steps' image, best as NAME@sha256:…; default: the one of `make images`")] = "",
) -> None:
    """Write the pipeline as YAML for a cluster, with this system as its default."""
    from pipelines.compiled import compile_pipeline
    from pipelines.training import training_on_cluster
    from serving.system import load_system

    load_system(system)  # refuses a system that is not there
    if not compile_pipeline(training_on_cluster(), system, out, image):
        typer.echo(
            "The image goes by its tag: Kubeflow takes a rebuilt one for the same and skips its steps. Give --image NAME@sha256:…", err=True
        )
    typer.echo(out)


Host = Annotated[str, typer.Option(help="where Kubeflow Pipelines answers", envvar="KFP_ENDPOINT", show_default=False)]
Address = Annotated[str, typer.Option("--data", help="s3://BUCKET/PATH of your own tables; default: the system's own")]
Image = Annotated[str, typer.Option(help="the steps' image, best as NAME@sha256:…; default: the one of `make images`")]
Gpu = Annotated[bool, typer.Option("--gpu", help="learn on a GPU where that helps; the image must have CUDA")]
Log = Annotated[str, typer.Option("--events", help="the server's log to learn from, too: kafka://HOST:PORT/TOPIC")]


@pipeline.command("submit")
def pipeline_submit(
    system: System,
    host: Host,
    data: Address = "",
    until: Until = "",
    fast: Fast = False,
    seed: Seed = 0,
    events: Log = "",
    cause: Annotated[str, typer.Option(help="why, for the registry")] = "",
    accept: Accept = False,
    image: Image = "",
    gpu: Gpu = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="follow the run to its end")] = True,
) -> None:
    """Train on a cluster and follow it: a line a step, the run's page, its end as the exit code."""
    from pipelines.submit import submit

    arguments: dict[str, str | int | bool] = {"data": data, "until": until, "fast": fast, "seed": seed, "accept": accept}
    if not submit(system, host, {**arguments, "events": events, "cause": cause}, image, gpu, wait, typer.echo):
        raise typer.Exit(1)


@pipeline.command("schedule")
def pipeline_schedule(
    system: System,
    host: Host,
    daily: Annotated[str, typer.Option(help="every day at HH:MM UTC, from the champion's weights; empty: not")] = "",
    weekly: Annotated[str, typer.Option(help="everything, on this day of the week at 01:00 UTC; empty: not")] = "",
    data: Address = "",
    seed: Seed = 0,
    events: Log = "",
    image: Image = "",
    gpu: Gpu = False,
) -> None:
    """Recurring runs on a cluster, in the place of those of before; at most one of each at a time, none for a time it was away."""
    from pipelines.submit import schedule

    if not daily and not weekly:
        raise typer.BadParameter("give --daily 03:00, --weekly sun, or both", param_hint="--daily")
    asked = [(daily, "daily", "daily")] * bool(daily) + [("01:00", weekly, "full")] * bool(weekly)
    for at, on, mode in asked:
        arguments: dict[str, str | int | bool] = {"data": data, "seed": seed, "events": events, "mode": mode, "cause": f"scheduled {on}"}
        typer.echo(f"{schedule(system, host, at, on, arguments, image, gpu)} at {at} UTC")


@app.command()
def recommend(
    system: System,
    user: Annotated[str, typer.Argument(help="a user id", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, help="how many")] = 10,
    why: Annotated[bool, typer.Option("--why", help="with the sources and the score of each")] = False,
    home: Home = HOME,
    bundle: Bundle = None,
    registry: Registry = "",
) -> None:
    """Print one user's list with a reason each."""
    from pipelines.answers import recommend as work

    consult(system, home, bundle, registry)
    work(system, user, k=k, why=why, home=home, bundle=bundle)


@app.command()
def batch(
    system: System,
    out: Annotated[Path, typer.Option(help="the Parquet to write: user_id, item_id, rank, score, source", show_default=False)],
    per_user: Annotated[int, typer.Option(min=1, help="items a user")] = 1000,
    discover: Annotated[bool, typer.Option("--discover", help="leave out what the user has had")] = False,
    home: Home = HOME,
    bundle: Bundle = None,
    registry: Registry = "",
) -> None:
    """Write a list for every user."""
    from pipelines.answers import batch as work

    consult(system, home, bundle, registry)
    work(system, out, per_user=per_user, discover=discover, home=home, bundle=bundle)


@app.command()
def vectors(
    system: System,
    out: Annotated[Path, typer.Option(help="the Parquet to write: item_id, vector, prior, or user_id, vector", show_default=False)],
    items: Annotated[bool, typer.Option("--items/--users", help="of which", show_default=False)],
    home: Home = HOME,
    bundle: Bundle = None,
    registry: Registry = "",
) -> None:
    """Write the towers' vectors of every item or user."""
    from pipelines.vectors import vectors as work

    consult(system, home, bundle, registry)
    work(system, out, items=items, home=home, bundle=bundle)


@app.command()
def frontier(
    system: System,
    out: Annotated[
        Path | None, typer.Option(help="the .png to write, and the .json beside it", show_default="HOME/frontier/SYSTEM.png")
    ] = None,
    weights: Annotated[list[str] | None, typer.Option(help="HEAD=NUMBER,… to try besides; may be given again", show_default=False)] = None,
    home: Home = HOME,
    bundle: Bundle = None,
    registry: Registry = "",
) -> None:
    """Print and plot what other weights of the heads would bring, in a world whose truth is known."""
    from rich.console import Console

    from components.release.releases import released
    from pipelines import frontier as work
    from serving.system import load_system

    consult(system, home, bundle, registry)
    told = load_system(system)
    asked = work.weightings(told.objectives) | {text: work.read_weights(text, told.objectives) for text in weights or ()}
    found = work.frontier(told, work.world_of(told), released(system, home, bundle), asked)
    Console().print(work.table(found))
    place = out or home / "frontier" / f"{told.name}.png"
    work.save(found, place)
    Console().print(f"{place} and {place.with_suffix('.json')}", soft_wrap=True, highlight=False)


@app.command()
def capacity(
    system: System,
    users: Annotated[float, typer.Option(help="users of whom a state is kept", show_default=False)],
    items: Annotated[float, typer.Option(help="items of the catalogue", show_default=False)],
    qps: Annotated[float, typer.Option(help="requests a second", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="write the page there too, as docs/scale.md", show_default=False)] = None,
    home: Home = HOME,
    bundle: Bundle = None,
    registry: Registry = "",
) -> None:
    """Shards, replicas, regions and cost for a load and its fivefold, from what a bundle costs here."""
    from components.release.releases import released
    from pipelines.capacity import Assumed, measure, page
    from serving.system import load_system

    consult(system, home, bundle, registry)
    found = released(system, home, bundle)
    text = page(system, measure(load_system(system), found.bundle, found.users), Assumed(), users, items, qps)
    typer.echo(text)
    if out is not None:
        out.write_text(text)


@app.command()
def serve(
    system: System,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="processes that share the port")] = 1,
    drain_seconds: Annotated[float, typer.Option(min=0.0, help="told to stop, go on answering this long while not ready")] = 3.0,
    follow: Annotated[Path | None, typer.Option(help="release file to follow", show_default="as `shortlist sync` writes it")] = None,
    signed_by: Annotated[
        Path | None,
        typer.Option(help="public key, or a folder of them, one of which has to have signed a bundle", show_default=False),
    ] = None,
    home: Home = HOME,
    bundle: Bundle = None,
    registry: Registry = "",
) -> None:
    """Answer over HTTP: POST /v1/recommendations, POST /v1/events, /healthz, /readyz, /metrics."""
    from components.release.releases import release_file, released
    from serving.system import load_system
    from serving.worker.run import serve as work

    consult(system, home, bundle, registry)
    found = released(system, home, bundle)
    if bundle is None and follow is None:
        follow = release_file(load_system(system).name, home)  # `shortlist sync` and `promote` replace it
    work(
        system, found.bundle, found.users, home, host=host, port=port, workers=workers, drain_seconds=drain_seconds, follow=follow,
        signed_by=signed_by,
    )  # fmt: skip


@app.command()
def replay(
    system: System,
    since: Annotated[str, typer.Option("--from", help="first moment to replay, like 2017-11-27", show_default=False)],
    until: Annotated[str, typer.Option("--to", help="first moment not to replay; default: the end")] = "",
    speed: Annotated[float, typer.Option(min=0.0, help="times faster than it happened; 0: as fast as the server takes it")] = 0.0,
    url: Annotated[str, typer.Option(help="the running server")] = "http://127.0.0.1:8080",
    home: Home = HOME,
) -> None:
    """Send the rows after the cut to a running server, in their order, as they happened."""
    from pipelines.replay import replay as work

    work(system, since, until, speed, url, home)


@app.command()
def why(
    request_id: Annotated[str, typer.Argument(help="as the answer gave it", show_default=False)],
    system: Annotated[str, typer.Option(help="path of the system's file, where it is one of your own")] = "",
    home: Home = HOME,
    bundle: Bundle = None,
) -> None:
    """Explain an answer given before: sources, features, rules, bundle."""
    from pipelines.why import why as work

    work(request_id, home=home, bundle=bundle, system=system)


@app.command()
def drift(
    system: System,
    since: Annotated[str, typer.Option(help="first moment of the window; default: a target's length before its end")] = "",
    until: Annotated[str, typer.Option(help="first moment after it; default: the end of the last day with rows")] = "",
    events: Events = "",
    registry: Registry = "",
    home: Home = HOME,
) -> None:
    """Say whether the world drifted from what the champion was judged on. Exit 0: no, 2: yes, 3: cannot judge."""
    from pipelines.drift import run_drift

    consult(system, home, None, registry)
    run_drift(system, since, until, home, events, registry)


@app.command()
def watch(
    system: System,
    data: Data = None,
    fast: Fast = False,
    seed: Seed = 0,
    home: Home = HOME,
    once: Annotated[bool, typer.Option("--once", help="one cycle, for a scheduler; default: for ever")] = False,
    every_hours: Annotated[float, typer.Option(min=0.01, help="between two looks")] = 24.0,
    cooldown_hours: Annotated[float, typer.Option(min=0.0, help="no retraining so soon after one ended")] = 24.0,
    most_a_week: Annotated[int, typer.Option(min=1, help="retrainings")] = 3,
    promote: Annotated[
        str, typer.Option(help="passed: what passed the gate answers at once; by-hand: a person promotes it; default: as the system says")
    ] = "",
    registry: Registry = "",
    resume: Annotated[bool, typer.Option("--resume", help="go on after the watch stopped")] = False,
) -> None:
    """Look for drift and answer it: train with what was served, judge, and promote by policy. Killed anywhere, it goes on where it was."""
    from datetime import timedelta

    from pipelines.retraining import watch as work
    from pipelines.watch import Policy

    _known_policy(promote)
    policy = Policy(cooldown=timedelta(hours=cooldown_hours), most_a_week=most_a_week)
    work(
        system,
        data,
        fast,
        seed,
        home,
        once=once,
        every_hours=every_hours,
        policy=policy,
        promote=promote.replace("-", " "),
        go_on=resume,
        registry=registry,
    )


def _known_policy(promote: str) -> None:
    if promote not in ("", "passed", "by-hand"):
        raise typer.BadParameter(f"{promote!r} is no policy: choose passed or by-hand", param_hint="--promote")


@app.command("drift-job")
def drift_job(
    system: System,
    host: Host,
    registry: Registry = "",
    data: Address = "",
    events: Log = "",
    fast: Fast = False,
    image: Image = "",
    gpu: Gpu = False,
    home: Home = HOME,
    cooldown_hours: Annotated[float, typer.Option(min=0.0, help="no retraining so soon after one ended")] = 24.0,
    most_a_week: Annotated[int, typer.Option(min=1, help="retrainings")] = 3,
    promote: Annotated[str, typer.Option(help="passed: what passed the gate becomes champion; by-hand: a person promotes it")] = "by-hand",
) -> None:
    """One cycle of the watch on a cluster: MLflow's champion against the world, a run of the pipelines where it drifted."""
    from datetime import timedelta

    from pipelines.drift_job import drift_job as work
    from pipelines.retraining import said
    from pipelines.watch import Policy

    _known_policy(promote)
    policy = Policy(cooldown=timedelta(hours=cooldown_hours), most_a_week=most_a_week)
    passed = promote == "passed"
    entry = work(system, data, events, fast, gpu, home, image=image, host=host, registry=registry, policy=policy, promote_passed=passed)
    typer.echo(said(entry))


@app.command()
def up(
    system: Annotated[str, typer.Argument(help="what the first training is of; empty: none")] = "shop",
    target: Annotated[str, typer.Option(help="kind: a cluster on this machine")] = "kind",
    platform: Annotated[str, typer.Option(help="install: the upstreams, too; skip: they are there")] = "install",
    overlay: Annotated[Path, typer.Option(help="what is applied")] = Path("manifests/overlays/kind"),
    minutes: Annotated[float, typer.Option(min=0.1, help="to wait for the pods")] = 15.0,
) -> None:
    """A cluster with everything on it: created, filled, waited for; then its first training. Again: what is missing."""
    from pipelines.cluster import bring_up

    if target != "kind":
        raise typer.BadParameter(f"{target!r} is no target: choose kind", param_hint="--target")
    if platform not in ("install", "skip"):
        raise typer.BadParameter(f"{platform!r} is no choice: install or skip", param_hint="--platform")
    bring_up(system, platform, overlay, minutes, lambda line: typer.echo(line, err=True))


@app.command()
def down() -> None:
    """Delete the cluster that `shortlist up` made. Again: nothing."""
    from pipelines.cluster import down as work

    work(lambda line: typer.echo(line, err=True))


@app.command()
def systems() -> None:
    """List the systems that come with Shortlist."""
    from rich.console import Console

    from pipelines.listing import systems_table

    Console().print(systems_table())


def main() -> None:
    """The console script `shortlist`. A system of your own names its ingest by module: found from the folder you are in."""
    sys.path.append(str(Path.cwd()))
    app()
