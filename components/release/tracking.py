"""What a run leaves in MLflow's tracking: what made the bundle, the numbers a person reads, plots, a report, and everything as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.release import forms
from components.release.figures import READ, curves, figures
from components.release.making import Making
from components.release.page import description, report
from serving.system import System

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

PARAMETER_LENGTH = 6000  # MLflow's limit for one value
TAG_LENGTH = 5000


def track(client: "MlflowClient", system: System, making: Making, metrics: Path, home: Path | None) -> str:
    """Write one finished run, or find the one of the same bundle and verdict, and return its id. A run that was killed is written on.

    Files go under `home`, or where the tracking server keeps them when that is None.
    """
    experiment = _experiment(client, system, home)
    word = "passed" if making.passed else "refused"
    known = client.search_runs([experiment], f"tags.bundle = '{making.digest}' and tags.gate = '{word}'", max_results=1)
    run = known[0] if known else client.create_run(experiment, run_name=making.digest[:12], tags={"bundle": making.digest, "gate": word})
    if run.info.status != "FINISHED":
        _fill(client, system, making, metrics, run.info.run_id, run.info.start_time)
        client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _fill(client: "MlflowClient", system: System, making: Making, metrics: Path, run: str, created_ms: int) -> None:
    from mlflow.entities import Metric, Param, RunTag

    tags = {**making.tags(), "data.span": str(making.manifest.get("span")), "mlflow.note.content": description(system, making)}
    numbers = [Metric(name, value, created_ms, 0) for name, value in figures(making).items()]
    numbers += [Metric(name, value, created_ms, step) for name, values in curves(making).items() for step, value in enumerate(values)]
    client.log_batch(
        run,
        metrics=numbers,
        params=[Param(name, value[:PARAMETER_LENGTH]) for name, value in making.settings().items()],
        tags=[RunTag(name, value[:TAG_LENGTH]) for name, value in tags.items()],
    )
    client.log_figure(run, judged_figure(making.metrics), "plots/judged.png")
    if curves(making):
        client.log_figure(run, loss_figure(curves(making)), "plots/losses.png")
    if making.timing:
        client.log_figure(run, forms.figure(making), "plots/forms.png")
    client.log_text(run, report(system, making, run), "report.html")
    client.log_artifacts(run, str(metrics), "evaluation")
    client.log_dict(run, dict(making.verdict), "gate.json")


def _experiment(client: "MlflowClient", system: System, home: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(system.name)
    if found is None:
        try:
            return client.create_experiment(system.name, artifact_location=(home.resolve() / "mlflow").as_uri() if home else None)
        except MlflowException as problem:
            if problem.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was first
                raise
            found = client.get_experiment_by_name(system.name)
    assert found is not None
    return str(found.experiment_id)


def judged_figure(metrics: Mapping[str, Any]) -> "Figure":
    """A bar a recommender for each metric that is read, with its error."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    judged = metrics["protocols"]["all"]["recommenders"]
    names = [name for name in READ if all(name in found for found in judged.values())]
    figure = Figure(figsize=(1.5 + 2.5 * len(names), 3.2), layout="constrained")
    axes = figure.subplots(1, max(len(names), 1), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=False):
        heights = [found[name]["value"] for found in judged.values()]
        axis.bar(list(judged), heights, yerr=[found[name].get("error", 0.0) for found in judged.values()], capsize=4)
        axis.set_title(name)
        axis.tick_params(axis="x", rotation=20)
    return figure


def loss_figure(losses: Mapping[str, list[float]]) -> "Figure":
    """A line a network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(losses), 3), layout="constrained")
    for axis, (name, values) in zip(figure.subplots(1, len(losses), squeeze=False)[0], losses.items(), strict=True):
        axis.plot(range(1, len(values) + 1), values, marker="o")
        axis.set_title(name.partition("/")[2])
    return figure
