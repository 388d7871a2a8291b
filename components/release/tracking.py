"""What a run leaves in MLflow's tracking: settings, metrics, plots, the span of the data, the bundle's digest."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient

Numbers = Mapping[str, float]
PARAMETER_LENGTH = 6000  # MLflow's limit for one value
SHOWN = ("ndcg@10", "recall@100", "recall@1000")  # in the plot, where the evaluation has them


def track(client: "MlflowClient", system: System, bundle: Path, metrics: Path, verdict: Mapping[str, Any], home: Path | None) -> str:
    """Write one finished run, or find the one of the same bundle and verdict, and return its id.

    Files go under `home`, or where the tracking server keeps them when that is None.
    """
    from mlflow.entities import Metric, Param, RunTag

    manifest = json.loads((bundle / "bundle.json").read_text())
    found = json.loads((metrics / "metrics.json").read_text())
    experiment = _experiment(client, system, home)
    known = client.search_runs([experiment], f"tags.bundle = '{bundle.name}' and tags.gate = '{verdict_word(verdict)}'", max_results=1)
    if known:
        return str(known[0].info.run_id)
    run = client.create_run(experiment, run_name=bundle.name[:12])
    created_ms = run.info.start_time
    numbers = dict(_leaves(found))
    tags = {
        "bundle": bundle.name,
        "gate": verdict_word(verdict),
        "gate.sentence": verdict["sentence"],
        "data.span": json.dumps(manifest.get("span")),
    }
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(_allowed(name), value, created_ms, 0) for name, value in numbers.items()],
        params=[Param(_allowed(name), value) for name, value in _settings(manifest)],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    _draw(client, run.info.run_id, found)
    client.log_artifacts(run.info.run_id, str(metrics), "evaluation")
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def verdict_word(verdict: Mapping[str, Any]) -> str:
    """What the gate said, as a tag."""
    return "passed" if verdict["passed"] else "refused"


def _experiment(client: "MlflowClient", system: System, home: Path | None) -> str:
    found = client.get_experiment_by_name(system.name)
    if found:
        return found.experiment_id
    return client.create_experiment(system.name, artifact_location=(home / "mlflow").as_uri() if home else None)


def _settings(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The system file's settings and the versions, one parameter each."""
    for name, value in sorted(manifest.get("settings", {}).items()):
        yield f"system.{name}", json.dumps(value, sort_keys=True)[:PARAMETER_LENGTH]
    yield "code_version", str(manifest.get("code_version"))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested mappings, named by its path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def _allowed(name: str) -> str:
    """MLflow's names hold letters, digits, `_`, `-`, `.`, `/`, `:` and blanks only."""
    return "".join(letter if letter.isalnum() or letter in "_-./: " else "_" for letter in name)


def _draw(client: "MlflowClient", run: str, metrics: Mapping[str, Any]) -> None:
    """A bar a recommender for each shown metric, as `metrics.png`."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    judged = metrics["protocols"]["all"]["recommenders"]
    names = [name for name in SHOWN if all(name in found for found in judged.values())]
    figure = Figure(figsize=(1.5 + 2.5 * len(names), 3.2), layout="constrained")
    axes = figure.subplots(1, max(len(names), 1), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=False):
        axis.bar(list(judged), [found[name]["value"] for found in judged.values()])
        axis.set_title(name)
        axis.tick_params(axis="x", rotation=20)
    client.log_figure(run, figure, "metrics.png")
