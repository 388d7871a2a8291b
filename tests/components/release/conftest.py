"""Registries for tests: a file whose tables are made once, and a real MLflow server that hands artifacts on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.release.registry import open_registry
from tests.components.release.made import Made, tiny_made
from tests.components.release.mlflow_server import MlflowServer


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
    """The address of a real MLflow server."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    (server.folder / "mlflow.db").write_bytes(empty)
    server.start()
    yield server.address
    server.stop()
