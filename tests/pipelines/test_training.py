"""The one definition: its steps, their image, and that nothing is installed when they start."""

from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.step import IMAGE
from pipelines.cli import app
from pipelines.training import STEPS, refit, training

ORDER = ["ingest", "served", "validate", "features", "retrieval", "ranking", "export", "pack", "champion", "evaluate", "gate", "register"]
BEFORE_JUDGING = ORDER[:8]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The pipeline as a cluster would get it."""
    out: Path = tmp_path_factory.mktemp("compiled") / "training.yaml"
    result = CliRunner().invoke(app, ["pipeline", "compile", "shop", str(out)])
    assert result.exit_code == 0, result.stderr
    return yaml.safe_load(out.read_text())


def test_the_steps_come_in_the_order_of_the_design() -> None:
    tasks = training.pipeline_spec.root.dag.tasks
    order = list(TopologicalSorter({name: sorted(task.dependent_tasks) for name, task in tasks.items()}).static_order())
    assert order == ORDER
    assert list(STEPS) == [*ORDER, "sanity", "adopt"]


def test_learning_again_goes_through_the_sanity_half_and_ends_in_adopting() -> None:
    assert set(refit.pipeline_spec.root.dag.tasks) == {*BEFORE_JUDGING, "sanity", "adopt"}


def test_every_step_runs_in_our_image_and_installs_nothing(compiled: dict) -> None:
    executors = compiled["deploymentSpec"]["executors"]
    assert len(executors) == len(ORDER)
    for executor in executors.values():
        assert executor["container"]["image"] == IMAGE
        assert "pip install" not in " ".join(executor["container"]["command"])


def test_the_compiled_pipeline_names_its_system_and_never_skips_what_looks_outside(compiled: dict) -> None:
    assert compiled["root"]["inputDefinitions"]["parameters"]["system"]["defaultValue"] == "shop"
    tasks = compiled["root"]["dag"]["tasks"]
    always = {name for name, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert always == {"ingest", "served", "champion", "register"}


def test_learning_again_skips_neither_the_ingest_nor_the_registry() -> None:
    tasks = refit.pipeline_spec.root.dag.tasks
    assert {name for name, task in tasks.items() if not task.caching_options.enable_cache} == {"ingest", "served", "adopt"}


def test_the_champion_is_read_when_the_candidate_is_there(compiled: dict) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    assert tasks["champion"]["dependentTasks"] == ["pack"]
    assert "champion" in tasks["evaluate"]["inputs"]["artifacts"]


def test_the_image_goes_by_its_digest_where_one_is_given(tmp_path: Path) -> None:
    image = f"registry.example/shortlist@sha256:{'0a' * 32}"
    result = CliRunner().invoke(app, ["pipeline", "compile", "shop", str(tmp_path / "t.yaml"), "--image", image])
    assert (result.exit_code, result.stderr) == (0, "")
    executors = yaml.safe_load((tmp_path / "t.yaml").read_text())["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {image}
    refused = CliRunner().invoke(app, ["pipeline", "compile", "shop", str(tmp_path / "t.yaml"), "--image", "shortlist@sha256:12"])
    assert refused.exit_code == 1
    assert "names no image by its digest" in refused.stderr
