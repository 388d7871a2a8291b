"""Every overlay and option renders to objects that the pinned versions of Kubernetes, KServe and the Gateway API take."""

import copy
import shutil
from pathlib import Path

import pytest
import yaml

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
