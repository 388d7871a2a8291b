"""The registry's record: what was learnt and how it was judged in MLflow's tracking, the bundle as a version of `shortlist-<system>`.

A bundle that passed the gate becomes `challenger`; the first one ever also `champion`. A person promotes by moving the alias.
Registering the same bundle again finds its version instead of making another.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.release import releases as shelf
from components.release.tracking import track
from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def register(
    system: System, bundle: Path, users: Path, metrics: Path, gate: Path, out: Path, home: str = "", tracking: str = ""
) -> dict[str, Any]:
    """Record the bundle, write `out/version.json` and return it: name, version, aliases, digest, run, whether the gate passed.

    `tracking` is MLflow's address; empty: a SQLite file under `home`. `users` is the state table that belongs to the bundle.
    """
    verdict = json.loads((gate / "gate.json").read_text())
    digest = bundle.name
    where = Path(home) if home else None
    with open_registry(where, tracking) as client:
        name = model_name(system)
        kept = shelf.put(bundle, users, where) if where else None
        found = version_of(client, name, digest)
        run = str(found.run_id) if found else track(client, system, bundle, metrics, verdict, where)
        if found is None and verdict["passed"]:
            found = new_version(client, name, digest, run, kept.bundle if kept else bundle)
        aliases = _point(client, name, found) if verdict["passed"] else []
        if where and "champion" in aliases:
            shelf.choose(system.name, digest, where)
    record = {
        "name": name,
        "version": str(found.version) if found else None,
        "aliases": aliases,
        "bundle": digest,
        "run": run,
        "passed": verdict["passed"],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "version.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def champion(system: System, home: str, tracking: str = "") -> Path | None:
    """What a candidate has to beat: the champion's bundle, or the one judged in its place if it was learnt again from all rows.

    None when there is no champion yet. Raises `UnknownBundle` when the registry names a bundle whose folder is not under `home`.
    """
    if not tracking and not (home and _store(Path(home)).is_file()):
        return None  # nothing was ever registered: spares the 4 seconds of importing MLflow
    with open_registry(Path(home) if home else None, tracking) as client:
        digest = _digest_of(client, model_name(system), "champion", tag="judged")
    if digest is None:
        return None
    bundle = Path(home) / "bundles" / digest
    if not bundle.is_dir():
        raise UnknownBundle(
            f"the champion of {system.name} is bundle {digest}, but {bundle} is not there: bring it back, or move the alias in MLflow"
        )
    return bundle


class UnknownBundle(ValueError):
    """The registry names a bundle that is not here."""


def model_name(system: System) -> str:
    """What the registry calls the system's model."""
    return f"shortlist-{system.name}"


def _store(home: Path) -> Path:
    return home / "mlflow.db"


@contextmanager
def open_registry(home: Path | None, tracking: str) -> Iterator["MlflowClient"]:
    """A client of the tracking server, or of the SQLite file under `home`. MLflow's own news stays at home."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if not tracking and home is None:
        raise ValueError("registering needs a home or MLflow's address: give --home, or the pipeline's parameter `tracking`")
    if not tracking and home is not None:
        home.mkdir(parents=True, exist_ok=True)
        tracking = f"sqlite:///{_store(home)}"
    from mlflow import MlflowClient

    yield MlflowClient(tracking_uri=tracking, registry_uri=tracking)


def version_of(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name = '{name}' and tags.bundle = '{digest}'")
    return found[0] if found else None


def _digest_of(client: "MlflowClient", name: str, alias: str, tag: str = "bundle") -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias).tags[tag]
    except MlflowException as problem:
        if problem.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None  # no such model yet, or no such alias
        raise


def new_version(client: "MlflowClient", name: str, digest: str, run: str, source: Path, judged: str = "") -> "ModelVersion":
    """A version of the model that is the bundle at `source`; `judged`: the bundle that was judged in its place."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, source=str(source), run_id=run, tags={"bundle": digest, "judged": judged or digest})


def _point(client: "MlflowClient", name: str, version: "ModelVersion | None") -> list[str]:
    """Move `challenger` to the version, `champion` only if nobody holds it. Returns the aliases the version has now."""
    if version is None:
        return []
    holder = _digest_of(client, name, "champion")
    if holder is None:
        client.set_registered_model_alias(name, "champion", version.version)
    if holder != version.tags["bundle"]:
        client.set_registered_model_alias(name, "challenger", version.version)
    return sorted(client.get_model_version(name, version.version).aliases)
