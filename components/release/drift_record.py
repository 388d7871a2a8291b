"""A drift verdict as a run in MLflow's tracking: the word, the worst tests, the page."""

from pathlib import Path
from typing import Any

from components.release.register import open_registry
from serving.system import System

_SHOWN = 20  # tests of which p and effect are kept


def record_drift(system: System, verdict: dict[str, Any], folder: Path, home: Path | None, tracking: str = "") -> str:
    """Write one finished run to the experiment `<system>-drift`, with everything in `folder` beside it; its id."""
    from mlflow.entities import Metric, RunTag

    with open_registry(home, tracking) as client:
        name = f"{system.name}-drift"
        found = client.get_experiment_by_name(name)
        where = (home.resolve() / "mlflow").as_uri() if home and not tracking else None
        experiment = found.experiment_id if found else client.create_experiment(name, artifact_location=where)
        run = client.create_run(experiment, run_name=f"{verdict['verdict']} {verdict.get('window', ['', ''])[1][:10]}")
        worst = sorted(verdict["tests"], key=lambda test: test["adjusted"])[:_SHOWN]
        numbers = {f"{part}/{_plain(test['column'])}": float(test[part]) for test in worst for part in ("adjusted", "effect")}
        numbers |= {"causes": float(len(verdict["causes"])), "rows": float(verdict["current"]["rows"])}
        tags = {"verdict": verdict["verdict"], "sentence": verdict["sentence"], "bundle": str(verdict.get("bundle"))}
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(key, value, run.info.start_time, 0) for key, value in numbers.items()],
            tags=[RunTag(key, value[:5000]) for key, value in tags.items()],
        )
        for file in ("verdict.json", "drift.html", "drift.prom"):
            if (folder / file).is_file():
                client.log_artifact(run.info.run_id, str(folder / file))
        client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
