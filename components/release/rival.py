"""What a candidate has to beat: the bundle behind the registry's `champion` at this moment, fetched."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.release.fetch import NotFetched, bring, bundle_fault
from components.release.registry import CHAMPION, ForeignVersion, address, digest_in, exists, holder, model_name, open_registry, version_of
from components.release.releases import chosen, place_of
from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def champion(system: System, out: Path, home: str = "", tracking: str = "") -> None:
    """Put the bundle a candidate has to beat at `out/<digest>/`: the champion's, or the one judged in its place if it was learnt again
    from all rows. Leave `out` empty when there is no champion yet.

    Where the alias points at what is none of ours, or cannot be fetched, what answers under `home` stands in, and the log says so.
    """
    out.mkdir(parents=True, exist_ok=True)
    where = Path(home) if home else None
    if not exists(where, tracking):
        return
    with open_registry(where, tracking) as client:
        try:
            _reigning(client, system, out, where, address(where, tracking))
        except (ForeignVersion, NotFetched) as problem:
            _stand_in(system, out, where, problem)


def _reigning(client: "MlflowClient", system: System, out: Path, home: Path | None, registry: str) -> None:
    found = holder(client, model_name(system), CHAMPION)
    if found is None:
        return
    judged = judged_version(client, found)
    digest = digest_in(judged)
    if home is not None and place_of(digest, home).bundle.is_dir():
        shutil.copytree(place_of(digest, home).bundle, out / digest)
        return
    bring(str(judged.source), out / digest, registry, lambda folder: bundle_fault(system, folder, digest), "it is not there")


def judged_version(client: "MlflowClient", version: "ModelVersion") -> "ModelVersion":
    """The version itself, or the one judged in its place if it was learnt again from all rows. Raises `NotFetched`."""
    digest = version.tags.get("judged") or digest_in(version)
    judged = version if digest == digest_in(version) else version_of(client, version.name, digest)
    if judged is None:
        raise NotFetched(f"version {version.version} was judged as bundle {digest}, of which the registry has no version")
    return judged


def _stand_in(system: System, out: Path, home: Path | None, problem: Exception) -> None:
    """What answers under this home is what a new bundle would replace. Raises the problem when nothing does."""
    if home is None:
        raise problem
    digest = chosen(system.name, home)
    if digest is None or not place_of(digest, home).bundle.is_dir():
        raise problem
    print(f"{problem}. The candidate is compared with what answers here: bundle {digest}", flush=True)
    shutil.copytree(place_of(digest, home).bundle, out / digest)
