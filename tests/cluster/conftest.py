"""A cluster that is up with Shortlist on it, as `shortlist up` leaves it; without one these tests are skipped, and say so."""

import json
import shutil
import subprocess
from typing import Any

import pytest

SPACE = "shortlist"


def kubectl(*words: str, stdin: str = "") -> str:
    """What kubectl says. Raises `AssertionError` with its complaint."""
    done = subprocess.run(["kubectl", *words], capture_output=True, text=True, input=stdin or None, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(kind: str, space: str = SPACE) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl("-n", space, "get", kind, "-o", "json"))["items"]
    return found


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """Skip where there is none."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl: `shortlist up` needs it, too")
    context = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True).stdout.strip()
    if not context.startswith("kind-"):
        pytest.skip(f"kubectl points to {context or 'no cluster'}: these tests start and end pods, so only on a kind cluster")
    there = subprocess.run(["kubectl", "get", "namespace", SPACE, "--request-timeout=10s"], capture_output=True, text=True)
    if there.returncode:
        pytest.skip(f"Shortlist is not on {context}: `shortlist up` puts it there")
