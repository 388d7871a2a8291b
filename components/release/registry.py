"""The registry: MLflow in a SQLite file under a home, or a server by its address; and who holds which alias there.

Everything that goes wrong on its side comes out as one sentence in one kind of error, so that whoever only wanted to know goes on without.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.home import by_turns
from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model yet; no such alias or version
_NAME = re.compile(r"[0-9A-Za-z]{1,64}")  # what may become a folder's name


class RegistryUnavailable(ValueError):
    """The registry does not answer, or answers with something else than it should."""


class ForeignVersion(ValueError):
    """An alias points at a version that does not say which bundle it is."""


class UnknownBundle(ValueError):
    """The registry has no version of this bundle, or names one that is nowhere."""


def model_name(system: System) -> str:
    """What the registry calls the system's model."""
    return f"shortlist-{system.name}"


def store(home: Path) -> Path:
    """The registry's file under a home."""
    return home / "mlflow.db"


def address(home: Path | None, tracking: str) -> str:
    """Where the registry is, as MLflow writes it. Raises `ValueError` when there is neither a home nor an address."""
    if not tracking and home is None:
        raise ValueError("registering needs a home or MLflow's address: give --home, or the pipeline's parameter `tracking`")
    return tracking or f"sqlite:///{store(Path(str(home)).resolve())}"


def exists(home: Path | None, tracking: str) -> bool:
    """Whether there is a registry to ask. Spares the seconds of importing MLflow where nothing was ever registered."""
    return bool(tracking) or (home is not None and store(home).is_file())


@contextmanager
def open_registry(home: Path | None, tracking: str, alone: bool = False) -> Iterator["MlflowClient"]:
    """A client of the server at `tracking`, or of the SQLite file under `home`. MLflow's own news stays at home.

    `alone`: nobody else who asks so writes to this home's registry meanwhile. Raises `RegistryUnavailable`.
    """
    tracking = address(home, tracking)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    with ExitStack() as held:
        if home is not None and alone:
            held.enter_context(by_turns(home, "registry"))
        with _explained(tracking):
            yield _client(home, tracking)


_PATIENCE = {  # MLflow's own: seven tries, two minutes each
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def _client(home: Path | None, tracking: str) -> "MlflowClient":
    from mlflow import MlflowClient

    if home is None or "://" not in tracking or tracking.startswith("http"):
        return MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    with by_turns(home, "mlflow"):  # the first one makes the tables
        return MlflowClient(tracking_uri=tracking, registry_uri=tracking)


@contextmanager
def _explained(tracking: str) -> Iterator[None]:
    """Whatever the registry fails with, as `RegistryUnavailable`."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (CommandError, MlflowException, RequestException, SQLAlchemyError) as problem:
        said = " ".join(str(problem).split())[:300]
        raise RegistryUnavailable(
            f"the registry at {_shown(tracking)} does not answer as it should ({said}): start it or repair it"
        ) from problem


def _shown(tracking: str) -> str:
    """The address without what is nobody's business."""
    return re.sub(r"//[^/@]*@", "//", tracking) if urlsplit(tracking).password else tracking


def holder(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    """The version the alias points at; None when there is no such model or alias. Raises `ForeignVersion`."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(name, alias)
    except MlflowException as problem:
        if problem.error_code in _ABSENT:
            return None
        raise
    digest_in(found, f"the alias {alias} of {name} points at version {found.version}")
    return found


def digest_in(version: "ModelVersion", says: str = "") -> str:
    """The digest of the version's bundle, hexadecimal. Raises `ForeignVersion`."""
    digest = version.tags.get("bundle", "")
    if not _NAME.fullmatch(digest):
        says = says or f"version {version.version} of {version.name}"
        raise ForeignVersion(
            f"{says}, which names no bundle of ours (tag bundle: {digest!r}): point it at a version `shortlist history` lists"
        )
    return str(digest)


def version_of(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    """The oldest version of this bundle."""
    found = client.search_model_versions(f"name = '{name}' and tags.bundle = '{digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    """Every version, newest first, its aliases with it."""
    model = client.search_registered_models(f"name = '{name}'")
    if not model:
        return []
    aliases: dict[str, list[str]] = {}
    for alias, number in model[0].aliases.items():
        aliases.setdefault(str(number), []).append(alias)
    found = []
    page = client.search_model_versions(f"name = '{name}'", max_results=200)
    while True:
        found += list(page)
        if not page.token:
            break
        page = client.search_model_versions(f"name = '{name}'", max_results=200, page_token=page.token)
    for version in found:
        version.aliases = sorted(aliases.get(str(version.version), []))
    return sorted(found, key=lambda version: -int(version.version))
