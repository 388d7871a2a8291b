"""Every overlay and option renders to objects that the pinned versions of Kubernetes, KServe and the Gateway API take."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.train_job import STAGES
from tests.manifests.rendered import MANIFESTS, OPTIONS, OVERLAYS, Object, of_kind, platform_services, rendered, with_option
from tests.manifests.schemas import faults

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, which holds Kustomize")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_taken_by_the_pinned_versions(overlay: str) -> None:
    assert faults(list(rendered(overlay))) == []


@pytest.mark.parametrize("option", OPTIONS)
def test_the_base_with_one_option_is_taken(option: str) -> None:
    assert faults(list(with_option(option))) == []


def test_the_services_of_a_cluster_for_trying_are_taken() -> None:
    assert faults(list(platform_services())) == []


OWN = ("kfp-launcher", "namespaces", "ports", "prometheus")


@pytest.mark.parametrize("file", [MANIFESTS / "platform" / f"{name}.yaml" for name in OWN])
def test_what_the_platform_adds_to_its_upstreams_is_taken(file: Path) -> None:
    """Those of Kubernetes' own kinds; of Envoy Gateway's and KServe's cluster-wide ones there is no schema here."""
    assert faults(list(yaml.safe_load_all(file.read_text()))) == []


@pytest.mark.parametrize(
    ("kind", "spoil", "named"),
    [
        ("InferenceService", lambda spec: spec["predictor"].update(minReplica=1), "minReplica"),
        ("InferenceService", lambda spec: spec["predictor"]["model"].pop("modelFormat"), "model_format"),
        ("ServingRuntime", lambda spec: spec["containers"][0].update(comand=["x"]), "comand"),
        ("HTTPRoute", lambda spec: spec["rules"][0].update(backends=[]), "backends"),
        ("Deployment", lambda spec: spec["template"]["spec"]["containers"][0].update(readynessProbe={}), "readynessProbe"),
    ],
)
def test_a_misspelt_field_is_found(kind: str, spoil: object, named: str) -> None:
    spoilt: Object = copy.deepcopy(of_kind(rendered("kind"), kind)[0])
    spoil(spoilt["spec"])  # type: ignore[operator]
    (found,) = faults([spoilt])[:1]
    assert named in found


@pytest.mark.parametrize(
    ("kind", "spoil", "named"),
    [
        ("TrainJob", lambda spec: spec.update(runtimePatch=[]), "runtimePatch"),
        ("TrainJob", lambda spec: spec["trainer"].update(numProcPerNode="two"), "numProcPerNode"),
        ("TrainingRuntime", lambda spec: spec["mlPolicy"].update(torch={"procs": 2}), "procs"),
        ("TrainingRuntime", lambda spec: pod_of(spec).update(serviceAcountName="train"), "serviceAcountName"),
    ],
)
def test_a_misspelt_field_of_a_train_job_is_found(kind: str, spoil: Callable[[Object], None], named: str) -> None:
    spoilt: Object = copy.deepcopy(of_kind(with_option("train-job"), kind)[0])
    spoil(spoilt["spec"])
    (found,) = faults([spoilt])[:1]
    assert named in found


def pod_of(spec: Object) -> Object:
    found: Object = spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return found


def test_train_jobs_run_the_stages_that_learn_in_the_runtime_beside_them() -> None:
    made = with_option("train-job")
    runtimes = {one["metadata"]["name"] for one in of_kind(made, "TrainingRuntime")}
    jobs = [one["spec"] for one in of_kind(made, "TrainJob")]
    assert {spec["runtimeRef"]["name"] for spec in jobs} == runtimes
    assert [(*spec["trainer"]["command"], *spec["trainer"]["args"][:2]) for spec in jobs] == [
        ("torchrun", "-m", "components.train_job")
    ] * len(STAGES)
    assert {spec["trainer"]["args"][2] for spec in jobs} == set(STAGES)
