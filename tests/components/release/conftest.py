"""Registries for tests: a file whose tables are made once, and a real MLflow server that hands artifacts on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from components.release.registry import open_registry
from tests.components.release.made import Made, tiny_made
from tests.serving.servers import free_port, until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # MLflow on SQLAlchemy 2.1
        item.add_marker(pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"))


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A registry's file whose tables are made, which takes MLflow five seconds."""
    home = tmp_path_factory.mktemp("registry")
    with open_registry(home, ""):
        return (home / "mlflow.db").read_bytes()


@pytest.fixture
def home(empty: bytes, tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mlflow.db").write_bytes(empty)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Made]:
    """Two bundles that can answer, with users, metrics and verdicts. Read only."""
    return tiny_made(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="session")
def server(empty: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on loopback with artifacts through it, one worker, no job runner. Half a minute to start."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    (folder / "mlflow.db").write_bytes(empty)
    line = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    line += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    more = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    more |= {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}  # to a receiver on loopback
    more |= {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode()}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, env={**os.environ, **more}, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: _healthy(process, port, folder / "log"), 180)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # uvicorn's worker is a child of the one we started
        process.wait(30)


def _healthy(process: "subprocess.Popen[bytes]", port: int, log: Path) -> bool:
    from urllib.error import URLError
    from urllib.request import urlopen

    assert process.poll() is None, log.read_text()[-2000:]
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
