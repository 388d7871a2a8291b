"""The controller on a real API server, KServe's webhooks and the gateway's routes: steps, promotion, withdrawal, and the record.

The registry, the figures and the pods are stand-ins here: the pods only listen. Every tick is a controller of its own, as after a kill.
"""

import json
import os
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from components.release.kube import KubeCluster
from components.release.rollout import Controller
from components.release.rollout_record import Conflict, RolloutLine, RolloutRecord
from components.release.rollout_state import RolloutPolicy
from tests.cluster.conftest import kubectl, objects
from tests.components.release.test_rollout import NEW, OLD, Shelfless

pytestmark = pytest.mark.cluster
SPACE = "test-rollout"
POLICY = RolloutPolicy(step_seconds=3.0, step_requests=40, ready_seconds=90.0, drain_seconds=3.0, grace_seconds=5.0)
LISTENS = "from http.server import *; ThreadingHTTPServer(('', 8080), SimpleHTTPRequestHandler).serve_forever()"
MANIFEST = """
apiVersion: v1
kind: ServiceAccount
metadata: {{name: models}}
secrets: [{{name: s3}}]
---
apiVersion: v1
kind: Secret
metadata:
  name: s3
  annotations:
    serving.kserve.io/s3-endpoint: seaweedfs.kubeflow:9000
    serving.kserve.io/s3-usehttps: "0"
    serving.kserve.io/s3-region: us-east-1
stringData: {{AWS_ACCESS_KEY_ID: "{key}", AWS_SECRET_ACCESS_KEY: "{secret}"}}
---
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {{name: listens}}
spec:
  supportedModelFormats: [{{name: listens, autoSelect: true}}]
  protocolVersions: [v2]
  containers:
  - name: kserve-container
    image: dev.local/shortlist-serving:0.1.0
    command: [python, -c, "{listens}"]
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
"""
SERVICE = """---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: tiny-{role}, annotations: {{serving.kserve.io/deploymentMode: Standard, serving.kserve.io/autoscalerClass: none}}}}
spec: {{predictor: {{minReplicas: 1, serviceAccountName: models, model: {{modelFormat: {{name: listens}}, runtime: listens}}}}}}
"""


@pytest.fixture
def kube() -> Iterator[KubeCluster]:
    """A namespace with the two services of the system `tiny`, and its two bundles on S3."""
    from components.release.shelf import s3

    store = s3()
    for ref in (OLD, NEW):
        with store.open_output_stream(f"models/tiny/{ref.digest}/bundle.json") as file:
            file.write(b"{}")
    kubectl("delete", "namespace", SPACE, "--ignore-not-found", "--wait")
    kubectl("create", "namespace", SPACE)
    given = MANIFEST.format(key=os.environ["AWS_ACCESS_KEY_ID"], secret=os.environ["AWS_SECRET_ACCESS_KEY"], listens=LISTENS)
    text = given + "".join(SERVICE.format(role=role) for role in ("retrieval", "ranking"))
    kubectl("-n", SPACE, "apply", "-f", "-", stdin=text)
    yield KubeCluster("tiny", SPACE)
    kubectl("delete", "namespace", SPACE, "--wait=false")


def weights() -> dict[str, dict[str, int | None]]:
    """What each route gives each bundle's letter."""
    return {
        route["metadata"]["name"]: {
            one["name"].split("-b")[1][0]: one.get("weight") for rule in route["spec"]["rules"] for one in rule["backendRefs"]
        }
        for route in objects("httproutes", SPACE)
    }


def pods(letter: str) -> set[str]:
    found = objects("pods", SPACE)
    return {one["metadata"]["name"] for one in found if f"-b{letter * 12}-" in one["metadata"]["name"]}


def until(kube: KubeCluster, world: Shelfless, there: Callable[[RolloutRecord], bool], seconds: float = 300.0) -> RolloutRecord:
    """Ticks of ever new controllers until the record is so."""
    ends = time.monotonic() + seconds
    while True:
        record = Controller(kube, world, world, world.figures, world.smoke, POLICY, ask_names_seconds=0.0).tick(time.time())
        if there(record):
            return record
        assert time.monotonic() < ends, record.lines
        time.sleep(0.5)


def phase(*wanted: str) -> Callable[[RolloutRecord], bool]:
    return lambda record: record.rollout is not None and record.rollout.phase in wanted


def holds(percent: int) -> Callable[[RolloutRecord], bool]:
    return lambda record: record.rollout is not None and record.rollout.percent == percent and record.rollout.held > 0


def test_the_record_is_one_for_all_and_an_event_is_told_once(kube: KubeCluster) -> None:
    first = kube.write(RolloutRecord(start="x"))
    assert kube.record() == first
    kube.write(msgspec.structs.replace(first, start="y"))
    with pytest.raises(Conflict):
        kube.write(msgspec.structs.replace(first, start="z"))
    assert kube.record().start == "y"
    line = RolloutLine(0, time.time(), "r1", "canary", 5, "so it is")
    for _ in range(2):
        kube.event(line, warning=False)
    assert [one["message"] for one in objects("events", SPACE) if one["reason"] == "RolloutCanary"] == ["so it is"]


def test_a_first_bundle_then_a_challenger_by_steps_then_a_bundle_that_does_not_load(kube: KubeCluster) -> None:
    world = Shelfless(champion=OLD, challenger=None)
    until(kube, world, phase("done"))
    assert {name: list(given) for name, given in weights().items()} == {
        f"tiny-{role}{suffix}": ["a"] for role in ("retrieval", "ranking") for suffix in ("", "-predictor")
    }
    world.challenger = NEW
    for percent in (5, 25, 50):
        until(kube, world, holds(percent))
        assert list(weights().values()) == [{"a": 100 - percent, "b": percent}] * 4
    new = pods("b")
    until(kube, world, phase("warm"))
    assert world.champion == msgspec.structs.replace(NEW, rollout=world.champion.rollout)  # type: ignore[union-attr]
    assert list(weights().values()) == [{"b": 100, "a": 0}] * 4
    assert pods("b") >= new  # promoted without a restart
    assert pods("a")
    until(kube, world, phase("done"))
    missing = msgspec.structs.replace(OLD, digest="c" * 64, version="3")
    world.challenger = missing
    hurried = msgspec.structs.replace(POLICY, ready_seconds=10.0)
    ends = time.monotonic() + 120
    while True:
        record = Controller(kube, world, world, world.figures, world.smoke, hurried, ask_names_seconds=0.0).tick(time.time())
        assert all(weight in (0, None) or letter == "b" for given in weights().values() for letter, weight in given.items())
        if phase("done", "refused")(record) and record.rollout is not None and record.rollout.new.digest == missing.digest:
            break
        assert time.monotonic() < ends
        time.sleep(0.5)
    assert record.rollout.phase == "refused"
    assert "not ready" in record.rollout.reason
    assert world.challenger is None
    told = [one["message"] for one in objects("events", SPACE) if one["type"] == "Warning" and one["reason"] == "RolloutRefused"]
    assert len(told) == 1
    assert (
        json.loads(kubectl("-n", SPACE, "get", "configmap", "rollout-tiny", "-o", "json"))["metadata"]["annotations"]["shortlist.dev/phase"]
        == "refused"
    )
