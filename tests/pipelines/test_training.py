"""The one definition: its steps, their image, and that nothing is installed when they start."""

import tempfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from typer.testing import CliRunner

from components.step import IMAGE
from pipelines.cli import app
from pipelines.compiled import compile_pipeline
from pipelines.needs import NEEDS, SECRET, SECRET_KEYS
from pipelines.training import STEPS, refit, training, training_on_cluster

LEARNING = ["ingest", "start", "served", "validate", "features", "retrieval", "ranking", "export", "pack"]
ORDER = [*LEARNING, "champion", "evaluate", "gate"]
GOLDEN = Path(__file__).parents[2] / "pipelines" / "training.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The pipeline as a cluster would get it."""
    out: Path = tmp_path_factory.mktemp("compiled") / "training.yaml"
    result = CliRunner().invoke(app, ["pipeline", "compile", "shop", str(out)])
    assert result.exit_code == 0, result.stderr
    spec, platform = yaml.safe_load_all(out.read_text())
    return {**spec, "kubernetes": platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]}


def inside(compiled: dict) -> dict:
    """The tasks within the exit handler."""
    return compiled["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_the_steps_come_in_the_order_of_the_design() -> None:
    tasks = training.pipeline_spec.root.dag.tasks
    order = list(TopologicalSorter({name: sorted(tasks[name].dependent_tasks) for name in sorted(tasks)}).static_order())
    assert order == [*ORDER, "condition-branches-1"]
    assert sorted(STEPS) == sorted([*ORDER, "register", "record", "sanity", "adopt", "materialize"])


def test_the_gate_decides_whether_a_version_is_made(compiled: dict) -> None:
    """One branch registers, the other only records, and each is taken on what the gate gave back."""
    taken = {}
    for branch in compiled["components"]["comp-condition-branches-2"]["dag"]["tasks"].values():
        (step,) = compiled["components"][branch["componentRef"]["name"]]["dag"]["tasks"]
        taken[step] = branch["triggerPolicy"]["condition"]
    passed = "inputs.parameter_values['pipelinechannel--gate-Output'] == true"
    assert taken == {"register": passed, "record": f"!({passed})"}


def test_a_cluster_is_told_how_a_run_ended_whatever_happened_in_it(compiled: dict) -> None:
    told = compiled["root"]["dag"]["tasks"]["report"]
    assert told["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert told["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_every_step_asks_for_what_the_table_says_and_takes_its_secrets_by_reference(compiled: dict) -> None:
    executors = compiled["deploymentSpec"]["executors"]
    assert set(NEEDS) == {name.removeprefix("exec-") for name in executors}
    for name, need in NEEDS.items():
        container = executors[f"exec-{name}"]["container"]
        asked = container["resources"]
        assert (asked["resourceCpuRequest"], asked["resourceMemoryRequest"], asked["resourceMemoryLimit"]) == (
            need.cpu,
            need.memory,
            need.limit,
        )
        assert container["env"] == [{"name": "SHORTLIST_STEP_MINUTES", "value": str(need.minutes)}]
        (secret,) = compiled["kubernetes"][f"exec-{name}"]["secretAsEnv"]
        assert secret["secretName"] == SECRET
        assert {one["envVar"] for one in secret["keyToEnv"]} == set(SECRET_KEYS)


def test_a_gpu_is_asked_for_where_one_helps_and_only_when_wanted() -> None:
    def asking(gpu: bool) -> set[str]:
        executors = json_format.MessageToDict(training_on_cluster(gpu).pipeline_spec)["deploymentSpec"]["executors"]
        return {name for name, one in executors.items() if "accelerator" in one["container"].get("resources", {})}

    assert asking(False) == set()
    assert asking(True) == {"exec-retrieval", "exec-ranking"}


def test_what_is_reviewed_is_what_is_compiled() -> None:
    """`shortlist pipeline compile shop pipelines/training.yaml` after a change; the difference is read like code."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "training.yaml"
        compile_pipeline(training_on_cluster(), "shop", fresh)
        assert fresh.read_text() == GOLDEN.read_text()


def test_learning_again_goes_through_the_sanity_half_and_ends_in_adopting() -> None:
    assert set(refit.pipeline_spec.root.dag.tasks) == {*LEARNING, "sanity", "adopt"}


def test_every_step_runs_in_our_image_and_installs_nothing(compiled: dict) -> None:
    executors = compiled["deploymentSpec"]["executors"]
    assert set(executors) == {f"exec-{name}" for name in (*ORDER, "register", "record", "report")}
    for executor in executors.values():
        assert executor["container"]["image"] == IMAGE
        assert "pip install" not in " ".join(executor["container"]["command"])


def test_the_compiled_pipeline_names_its_system_and_never_skips_what_looks_outside(compiled: dict) -> None:
    assert compiled["root"]["inputDefinitions"]["parameters"]["system"]["defaultValue"] == "shop"
    levels = [compiled["root"], *(one for one in compiled["components"].values() if "dag" in one)]
    tasks = [one for level in levels for one in level["dag"]["tasks"].items() if "cachingOptions" in one[1]]
    always = {name for name, task in tasks if not task["cachingOptions"].get("enableCache")}
    assert always == {"start", "ingest", "served", "champion", "register", "record", "report"}


def test_learning_again_skips_neither_the_ingest_nor_the_registry() -> None:
    tasks = refit.pipeline_spec.root.dag.tasks
    assert {name for name, task in tasks.items() if not task.caching_options.enable_cache} == {"start", "ingest", "served", "adopt"}


def test_the_champion_is_read_when_the_candidate_is_there(compiled: dict) -> None:
    tasks = inside(compiled)
    assert tasks["champion"]["dependentTasks"] == ["pack"]
    assert "champion" in tasks["evaluate"]["inputs"]["artifacts"]


def test_the_image_goes_by_its_digest_where_one_is_given(tmp_path: Path) -> None:
    image = f"registry.example/shortlist@sha256:{'0a' * 32}"
    result = CliRunner().invoke(app, ["pipeline", "compile", "shop", str(tmp_path / "t.yaml"), "--image", image])
    assert (result.exit_code, result.stderr) == (0, "")
    executors = next(yaml.safe_load_all((tmp_path / "t.yaml").read_text()))["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {image}
    refused = CliRunner().invoke(app, ["pipeline", "compile", "shop", str(tmp_path / "t.yaml"), "--image", "shortlist@sha256:12"])
    assert refused.exit_code == 1
    assert "names no image by its digest" in refused.stderr
