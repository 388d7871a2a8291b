"""However a run is interrupted, the same command goes on and ends in the same bundle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.training import STEPS, training
from tests.world.generate import write_world

ROOT = Path(__file__).parent.parent.parent
RUDE, POLITE = signal.SIGKILL, signal.SIGINT


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that trains a world half the size of the tiny one; a home is to be added."""
    folder = tmp_path_factory.mktemp("interrupts")
    write_world(folder / "tables", users=24, items=72, weeks=7)
    text = (ROOT / "tests" / "world" / "system.py").read_text()
    text = text.replace("pool_size=80", "pool_size=24").replace("light_size=40", "light_size=12").replace("cuts=4", "cuts=2")
    (folder / "system.py").write_text(text.replace('"tests/world/', f'"{ROOT}/tests/world/'))
    return [sys.executable, "-m", "pipelines", "train", str(folder / "system.py"), "--data", str(folder / "tables"), "--fast", "--home"]


def run(command: list[str], interrupt: tuple[str, signal.Signals] | None = None) -> int:
    """Run to the end, or until a line begins with the given event: then send the signal. Returns the exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if interrupt and line.startswith(interrupt[0]):
                process.send_signal(interrupt[1])
    return process.returncode


def bundles(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "bundles").iterdir())


@pytest.mark.slow
def test_interrupted_before_and_within_every_step_a_run_ends_in_the_same_bundle(train: list[str], tmp_path: Path) -> None:
    tasks = training.pipeline_spec.root.dag.tasks
    for place, step in enumerate(step for step in STEPS if step in tasks):
        before, within = (RUDE, POLITE) if place % 2 else (POLITE, RUDE)
        assert run([*train, str(tmp_path / "often")], (f"step={step} state=started", before)) in (-RUDE, 130), step
        assert run([*train, str(tmp_path / "often")], (f"step={step} state=working", within)) in (-RUDE, 130), step
    often, never = run([*train, str(tmp_path / "often")]), run([*train, str(tmp_path / "never")])
    assert often == never
    assert bundles(tmp_path / "often") == bundles(tmp_path / "never")
    assert len(bundles(tmp_path / "never")) == 1
    assert list((tmp_path / "often" / "steps").rglob("*.partial")) == []
