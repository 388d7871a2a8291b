"""Run a pipeline here: its steps in this process, in a process each, or in a container each. The same definition, the same results.

A run's folder `<home>/runs/<moment>-<pipeline>/` keeps its log and `run.json`: every step's key, rows in, out and set aside, seconds.
"""

import json
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from components.home import occupied
from components.step import IMAGE
from pipelines.journal import Journal

Runner = Literal["process", "subprocess", "docker"]
Arguments = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Run:
    """What a run left: its folder, and the record of every step in the order they ended."""

    folder: Path
    steps: tuple[dict[str, Any], ...]

    def output(self, step: str) -> Path:
        """Where the step's result lies, as long as the run's home does."""
        found = sorted(self.folder.rglob(f"{step}/out"))
        if not found:
            raise StepFailed(f"the run in {self.folder} has no step {step!r}: its steps are {', '.join(s['step'] for s in self.steps)}")
        return found[-1]


class StepFailed(ValueError):
    """A step refused its input; the message is the step's own."""


class StepBroke(RuntimeError):
    """A step ended in a way nobody foresaw; the message says where its log is."""


def run_pipeline(pipeline: Any, arguments: Arguments, runner: Runner, home: Path, show: Callable[[str], None] | None = None) -> Run:
    """Run the whole pipeline, resuming what is already done under `home`. `show` is told each step event.

    Raises `StepFailed` with a step's own message, `StepBroke` when a step died of something else.
    """
    home = home.resolve()
    folder = home / "runs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}-{pipeline.name}"  # two may start at once
    folder.mkdir(parents=True)
    arguments = {**arguments, "home": str(home)}
    journal = Journal(folder / "log.txt", show)
    try:
        with occupied(home), journal, redirect_stdout(journal), redirect_stderr(journal):
            _RUNNERS[runner](pipeline, arguments, folder)
    except RuntimeError as problem:
        raise _explained(problem, folder) from problem
    finally:
        steps = _records(folder)
        record = {"pipeline": pipeline.name, "runner": runner, "arguments": dict(arguments), "steps": steps}
        (folder / "run.json").write_text(json.dumps(record, indent=1))
    return Run(folder, tuple(steps))


def _in_process(pipeline: Any, arguments: Arguments, folder: Path) -> None:
    from pipelines.in_process import run_in_process

    run_in_process(pipeline, arguments, folder)


def _in_subprocesses(pipeline: Any, arguments: Arguments, folder: Path) -> None:
    from kfp import local

    _run_locally(local.SubprocessRunner(use_venv=False), pipeline, arguments, folder)


def _in_containers(pipeline: Any, arguments: Arguments, folder: Path) -> None:
    """A container a step. What it may see: the home (written), the user's own tables and system file (read only)."""
    from docker.types import Mount
    from kfp import local

    home = str(arguments["home"])
    given = {str(arguments.get("data", "")), str(Path(str(arguments["system"])).parent) if str(arguments["system"]).endswith(".py") else ""}
    mounts = [Mount(home, home, type="bind"), *(Mount(path, path, type="bind", read_only=True) for path in sorted(given - {""}))]
    owner = f"{os.getuid()}:{os.getgid()}"  # so that the results belong to who asked for them
    with _engine():
        _run_locally(local.DockerRunner(mounts=mounts, user=owner, network_mode="none"), pipeline, arguments, folder)


_RUNNERS: dict[str, Callable[[Any, Arguments, Path], None]] = {
    "process": _in_process,
    "subprocess": _in_subprocesses,
    "docker": _in_containers,
}


def _run_locally(runner: Any, pipeline: Any, arguments: Arguments, folder: Path) -> None:
    from kfp import local

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You may be attemping to run a task that uses custom")
        local.init(runner, pipeline_root=str(folder))
        pipeline(**arguments)


@contextmanager
def _engine() -> Iterator[None]:
    """Docker with our image in it. Raises `StepFailed` that says how to get either."""
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as problem:
        raise StepFailed("no Docker engine answers: start one and set DOCKER_HOST, or use --runner subprocess") from problem
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound as problem:
        raise StepFailed(f"the engine has no image {IMAGE}: run `make images`, or use --runner subprocess") from problem
    finally:
        client.close()
    yield


def _records(folder: Path) -> list[dict[str, Any]]:
    """The records of the run's steps, in the order they ended."""
    files = sorted(folder.rglob("*.record.json"), key=lambda file: file.stat().st_mtime_ns)
    return [json.loads(file.read_text()) for file in files]


def _explained(problem: RuntimeError, folder: Path) -> Exception:
    """The step's own message where it left one, else a pointer to the log."""
    for file in folder.rglob("*.error.txt"):
        kind, _, message = file.read_text().partition("\n")
        if kind.startswith(("feature_repo.", "serving.", "components.", "pipelines.")):
            return StepFailed(message)
    with (folder / "log.txt").open("a") as log:
        log.write("".join(traceback.format_exception(problem)))
    return StepBroke(f"a step of {folder.name} broke: its log is {folder / 'log.txt'}")
