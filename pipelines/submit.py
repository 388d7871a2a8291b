"""`shortlist pipeline submit` and `schedule`: the loop on a cluster's Kubeflow Pipelines, watched from here to its end.

A pipeline's versions are named by what was compiled, so the same definition is uploaded once, and a recurring run says which one it is.
"""

import hashlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.compiled import compile_pipeline
from pipelines.schedule import time_of

NAME = "shortlist-training"
RUNNING = ("PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED", "CANCELING", "PAUSED")
_AWAY_SECONDS = 300.0  # that the server may not answer while a run goes on
Arguments = Mapping[str, str | int | bool]


class PipelinesUnavailable(ValueError):
    """Kubeflow Pipelines does not answer at the address, or not as it should."""


@dataclass
class Watched:
    """A run as last seen: its state, and the states of our own steps in the order they began."""

    state: str = "PENDING"
    steps: dict[str, str] = field(default_factory=dict)

    def changed(self, run: Any, known: frozenset[str]) -> list[str]:
        """Take in what the server says; a line for each of our steps whose state is new. Its drivers and branches are not ours."""
        self.state, lines = run.state or self.state, []
        for task in (run.run_details.task_details if run.run_details else None) or []:
            name = task.display_name or ""
            if name in known and task.state and self.steps.get(name) != task.state:
                self.steps[name] = task.state
                lines.append(f"step={name} state={task.state.lower()}")
        return lines


def submit(
    system: str,
    host: str,
    arguments: Arguments,
    image: str = "",
    gpu: bool = False,
    wait: bool = True,
    show: Callable[[str], None] = print,
    every_seconds: float = 2.0,
    called: str = "",
) -> bool:
    """Start a run and, if `wait`, follow it; whether it succeeded. `show` is told the link and each step's changes.

    `called`: its name; a run of that name which has not failed is followed in its place. Raises `PipelinesUnavailable`.
    """
    client = _client(host)
    with tempfile.TemporaryDirectory() as folder:
        pipeline, version = _published(client, _compiled(system, image, gpu, Path(folder)), system)
    cause = str(arguments.get("cause", ""))
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    name = (called or f"{Path(system).stem} {began}" + (f" ({cause})" if cause else ""))[:200]
    with _explained(host):
        experiment = client.create_experiment(f"shortlist-{Path(system).stem}").experiment_id
        run = begun(client, experiment, name) if called else None
        if run is None:
            given = {"system": system, **arguments}
            run = client.run_pipeline(experiment, name, pipeline_id=pipeline, version_id=version, params=given)
    show(f"Run {run.run_id}: {host.rstrip('/')}/#/runs/details/{run.run_id}")
    if not wait:
        return True
    state = _followed(client, host, run.run_id, show, every_seconds)
    show(f"Run {run.run_id} {state.lower()}")
    return state == "SUCCEEDED"


def begun(client: Any, experiment: str, called: str) -> Any | None:
    """Of the experiment's newest runs, the one of this name that goes on or has succeeded."""
    runs = client.list_runs(experiment_id=experiment, page_size=100, sort_by="created_at desc").runs or []
    return next((run for run in runs if run.display_name == called and (run.state or RUNNING[0]) in (*RUNNING, "SUCCEEDED")), None)


def schedule(system: str, host: str, at: str, on: str, arguments: Arguments, image: str = "", gpu: bool = False) -> str:
    """A recurring run at HH:MM (UTC) on these days, in the place of the one of the same name; its name. Raises `PipelinesUnavailable`."""
    cron, name = cron_of(at, on), f"shortlist-{Path(system).stem}-{on}"
    client = _client(host)
    with tempfile.TemporaryDirectory() as folder:
        pipeline, version = _published(client, _compiled(system, image, gpu, Path(folder)), system)
    with _explained(host):
        experiment = client.create_experiment(f"shortlist-{Path(system).stem}").experiment_id
        for old in client.list_recurring_runs(experiment_id=experiment, page_size=100).recurring_runs or []:
            if old.display_name == name:
                client.delete_recurring_run(old.recurring_run_id)
        client.create_recurring_run(
            experiment,
            name,
            cron_expression=cron,
            no_catchup=True,  # a cluster that was away trains once, not once a day it missed
            max_concurrency=1,
            pipeline_id=pipeline,
            version_id=version,
            params={"system": system, **arguments},
        )
    return name


def cron_of(at: str, on: str) -> str:
    """Kubeflow's six fields, seconds first, of a time and `daily` or days of the week. Raises `pipelines.schedule.BadTime`."""
    hour, minute, days = time_of(at, on)
    return f"0 {minute} {hour} * * {days}"


def _compiled(system: str, image: str, gpu: bool, folder: Path) -> Path:
    from pipelines.training import training_on_cluster

    package = folder / "training.yaml"
    compile_pipeline(training_on_cluster(gpu), system, package, image)
    return package


def _client(host: str) -> Any:
    import kfp

    with _explained(host), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This client only works with Kubeflow Pipeline")  # 2.17 is what it is for
        return kfp.Client(host=host)


def _published(client: Any, package: Path, system: str) -> tuple[str, str]:
    """Ids of the pipeline and of the version that is this very package, uploaded now if it is not there."""
    name = f"{NAME}-{Path(system).stem}"
    version = hashlib.sha256(package.read_bytes()).hexdigest()[:12]
    with _explained("Kubeflow Pipelines"):
        pipeline = client.get_pipeline_id(name)
        if pipeline is None:
            pipeline = client.upload_pipeline(str(package), pipeline_name=name).pipeline_id
        token = ""
        while True:
            page = client.list_pipeline_versions(pipeline, page_size=100, page_token=token)
            for one in page.pipeline_versions or []:
                if one.display_name == version:
                    return pipeline, one.pipeline_version_id
            token = page.next_page_token or ""
            if not token:
                break
        made = client.upload_pipeline_version(str(package), version, pipeline_id=pipeline)
    return pipeline, made.pipeline_version_id


def _followed(client: Any, host: str, run_id: str, show: Callable[[str], None], every_seconds: float) -> str:
    """Ask until the run has ended; its last state. A server that is away for a while is asked again."""
    from pipelines.training import STEPS

    watched, missed = Watched(), 0
    known = frozenset({*STEPS, "report"})
    while True:
        try:
            with _explained(host):
                run = client.get_run(run_id)
            missed = 0
            for line in watched.changed(run, known):
                show(line)
            if watched.state not in RUNNING:
                return watched.state
        except PipelinesUnavailable:
            missed += 1
            if missed * every_seconds > _AWAY_SECONDS:
                raise
        time.sleep(every_seconds)


@contextmanager
def _explained(host: str) -> Iterator[None]:
    """Whatever the client fails with, as `PipelinesUnavailable`."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, HTTPError, OSError, RuntimeError) as problem:
        said = " ".join(str(getattr(problem, "body", None) or problem).split())[:300]
        raise PipelinesUnavailable(
            f"Kubeflow Pipelines at {host} does not answer as it should ({said}): is --host right, and is it up?"
        ) from problem
