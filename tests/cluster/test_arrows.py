"""A pod outside the arrows of docs/cluster.md reaches nothing; one at their end reaches its neighbours."""

import json

import pytest

from tests.cluster.conftest import kubectl

pytestmark = pytest.mark.cluster
NEIGHBOURS = {  # name -> HOST, PORT
    "recommender": ("recommender.shortlist", 8080),
    "retrieval": ("shop-retrieval-predictor.shortlist", 80),
    "ranking": ("shop-ranking-predictor.shortlist", 80),
    "redis": ("redis.redis", 6379),
    "mlflow": ("mlflow.mlflow", 5000),
    "s3": ("seaweedfs.kubeflow", 9000),
    "pipelines": ("ml-pipeline.kubeflow", 8888),
    "api": ("kubernetes.default", 443),
}
ASK = """
import json, socket, sys, time
time.sleep(3)  # a new pod's rules take some tenths of a second to be there
reached = []
for name, (host, port) in json.loads(sys.argv[1]).items():
    try:
        socket.create_connection((host, port), timeout=2).close()
        reached.append(name)
    except OSError:
        pass
print(json.dumps(reached))
"""


def reached(label: str) -> list[str]:
    """What a pod of this name label reaches."""
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "ask",
                "image": "dev.local/shortlist-serving:0.1.0",
                "command": ["python", "-c", ASK, json.dumps(NEIGHBOURS)],
                "securityContext": security,
            }
        ],
    }
    name = f"ask-{label}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app.kubernetes.io/name": label}}, "spec": spec}
    kubectl("-n", "shortlist", "delete", "pod", name, "--ignore-not-found")
    kubectl("-n", "shortlist", "apply", "-f", "-", stdin=json.dumps(pod))
    try:
        kubectl("-n", "shortlist", "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
        return sorted(json.loads(kubectl("-n", "shortlist", "logs", name)))
    finally:
        kubectl("-n", "shortlist", "delete", "pod", name, "--now")


def test_a_pod_outside_the_arrows_reaches_nothing() -> None:
    assert reached("stranger") == []


def test_a_pod_at_an_arrows_end_reaches_its_neighbours_alone() -> None:
    assert reached("drift") == ["mlflow", "pipelines", "s3"]
