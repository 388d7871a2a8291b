"""What the cluster answers through its gateway is what one server on this machine answers, from the same bundle."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from pipelines.cluster import address, settled
from tests.cluster.conftest import kubectl, objects
from tests.serving.servers import free_port

pytestmark = pytest.mark.cluster
USERS = ("718", "1", "2000", "nobody")
Listed = list[tuple[str, tuple[str, ...]]]


def listed(url: str, user: str) -> tuple[str, Listed, list[float]]:
    """Bundle, items with their sources, scores."""
    body = json.dumps({"user_id": user}).encode()
    request = urllib.request.Request(f"{url}/v1/recommendations", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        told = json.load(reply)
    assert told["degraded"] is None, told["degraded"]
    items = told["items"]
    return told["bundle"], [(one["item_id"], tuple(one["sources"])) for one in items], [one["score"] for one in items]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this machine with the bundle and the users of the recommender's pod."""
    folder = tmp_path_factory.mktemp("here")
    (pod,) = [one["metadata"]["name"] for one in objects("pods") if one["metadata"]["name"].startswith("recommender-")]
    kubectl("-n", "shortlist", "cp", "-c", "recommender", f"{pod}:/releases", str(folder / "releases"))
    port = free_port()
    given = ["--bundle", folder / "releases" / "bundle", "--users", folder / "releases" / "users", "--events", f"dir:{folder / 'log'}"]
    command = [sys.executable, "-m", "serving", "--system", "shop", "--clock", "auto", "--port", str(port), *map(str, given)]
    with subprocess.Popen(command) as server:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None
                time.sleep(0.2)
        yield url
        server.terminate()


@pytest.mark.parametrize("user", USERS)
def test_the_gateway_answers_as_a_server_of_this_machine(here: str, user: str) -> None:
    bundle, items, scores = listed(address(30080), user)
    assert (bundle, items) == listed(here, user)[:2]
    assert scores == pytest.approx(listed(here, user)[2], abs=1e-4)  # the two began at the bundle's cut, not at one moment


def test_every_pod_is_ready() -> None:
    assert [one["metadata"]["name"] for one in objects("pods") if not settled(one)] == []
