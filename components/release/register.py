"""The registry's record: what was learnt and how it was judged in MLflow's tracking, the bundle as a version of `shortlist-<system>`.

The bundle and its users are uploaded to the run, so any machine that reaches the registry can answer from them. A bundle that passed the
gate becomes `challenger`; the first one ever also `champion`, and with `promote="passed"` in the system file every one. Otherwise a person
promotes by moving the alias. Registering the same bundle again finds its version instead of making another.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.release import releases as shelf
from components.release.making import Making
from components.release.page import description
from components.release.registry import (
    CHALLENGER,
    CHAMPION,
    ForeignVersion,
    UnknownBundle,
    digest_in,
    holder,
    model_name,
    open_registry,
    version_of,
)
from components.release.succession import crown
from components.release.tracking import track
from components.start import leave
from components.step import digest_of
from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["UnknownBundle", "model_name", "open_registry", "register", "version_of"]


def register(
    system: System,
    bundle: Path,
    users: Path,
    metrics: Path,
    gate: Path,
    out: Path,
    home: str = "",
    tracking: str = "",
    tables: Path | None = None,
    features: Path | None = None,
    retrieval: Path | None = None,
    ranking: Path | None = None,
    export: Path | None = None,
) -> dict[str, Any]:
    """Record the bundle, write `out/version.json` and return it: name, version, aliases, digest, run, whether the gate passed.

    `tracking` is MLflow's address; empty: a SQLite file under `home`. `users` is the state table that belongs to the bundle; the last five
    are the folders of the steps that led to it. Raises `components.release.registry.RegistryUnavailable`.
    """
    making = Making.of(bundle, metrics, gate, tables, features, retrieval, ranking, export)
    where = Path(home) if home else None
    weights = None
    if making.passed and features and retrieval and ranking:
        weights = leave(bundle.name, features, retrieval, ranking, out / "weights")
    if where:
        shelf.put(bundle, users, where)
        if weights:
            shelf.put_weights(weights, bundle.name, where)
    with open_registry(where, tracking, alone=True) as client:
        name = model_name(system)
        found = version_of(client, name, bundle.name)
        run = str(found.run_id) if found else track(client, system, making, metrics, None if tracking else where)
        if found is None and making.passed:
            found = new_version(client, system, making, run, bundle, users, weights=weights)
        aliases, remark = _point(client, system, found) if found and making.passed else ([], "")
        if where and CHAMPION in aliases:
            shelf.choose(system.name, bundle.name, where)
    record = {
        "name": name,
        "version": str(found.version) if found else None,
        "aliases": aliases,
        "bundle": bundle.name,
        "run": run,
        "passed": making.passed,
        "remark": remark,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "version.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def new_version(
    client: "MlflowClient",
    system: System,
    making: Making,
    run: str,
    bundle: Path,
    users: Path,
    judged: str = "",
    place: str = "",
    weights: Path | None = None,
) -> "ModelVersion":
    """Upload bundle, users and weights to the run and make them a version; of two that were made at once the older one counts.

    `judged`: digest of the bundle that was judged in its place. `place`: folder of the run's artifacts, with a slash at its end.
    `weights`: what a daily training goes on from.
    """
    name = model_name(system)
    if weights:
        client.log_artifacts(run, str(weights), f"{place}weights")
    client.log_artifacts(run, str(bundle), f"{place}bundle")
    client.log_artifacts(run, str(users), f"{place}users")
    if not client.search_registered_models(f"name = '{name}'"):
        _create_model(client, name)
    tags = {"bundle": bundle.name, "users": digest_of(users), "judged": judged or bundle.name, **making.tags()}
    tags |= {"weights": digest_of(weights)} if weights else {}
    told = description(system, making, judged)
    made = client.create_model_version(name, source=f"runs:/{run}/{place}bundle", run_id=run, tags=tags, description=told)
    oldest = version_of(client, name, bundle.name)
    if oldest is not None and oldest.version != made.version:
        client.delete_model_version(name, made.version)
        return oldest
    return made


def _create_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, description="Bundles of Shortlist. What `champion` points at answers; `challenger` passed last."
        )
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was first
            raise


def _point(client: "MlflowClient", system: System, version: "ModelVersion") -> tuple[list[str], str]:
    """Move the aliases the version has earned. Returns those it has now, and what a person should know."""
    name, remark = model_name(system), ""
    try:
        champion = holder(client, name, CHAMPION)
        reigning = champion is not None and digest_in(champion) == digest_in(version)
        if champion is None or (system.promote == "passed" and not reigning):
            crown(client, version)
    except ForeignVersion as problem:  # somebody's decision: not ours to undo
        reigning, remark = False, str(problem)
    if not reigning:
        client.set_registered_model_alias(name, CHALLENGER, version.version)
    return sorted(client.get_model_version(name, version.version).aliases), remark
