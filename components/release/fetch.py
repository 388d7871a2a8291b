"""A version's bundle and users from the registry into the home's cache: named by the bundle's digest, proven before they count."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from components.home import occupied
from components.release.registry import digest_in
from components.release.releases import ReleasedBundle, move_in, place_of
from components.step import digest_of
from serving.bundle.bundle import BadBundle, show, verify
from serving.system import System

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class NotFetched(ValueError):
    """What the registry gave is not what it names."""

    version: str = ""  # number of the version that was asked for, where known
    refused: bool = False  # it came, and is not what it is said to be: asking again does not help


def fetch(system: System, version: "ModelVersion", home: Path, tracking: str) -> ReleasedBundle:
    """The version's bundle and users, found whole under `home` or downloaded there.

    `tracking` is where the registry is, as MLflow writes it. Raises `NotFetched` when a download fails, is damaged, or is another system's
    bundle; what lies in the cache is then as it was.
    """
    with occupied(home):
        return _fetched(system, version, home, tracking)


def _fetched(system: System, version: "ModelVersion", home: Path, tracking: str) -> ReleasedBundle:
    digest = digest_in(version)
    place = place_of(digest, home)
    if fault := bundle_fault(system, place.bundle, digest):
        bring(str(version.source), place.bundle, tracking, lambda folder: bundle_fault(system, folder, digest), fault)
    known = str(version.tags.get("users", ""))
    if fault := users_fault(place.users, known):
        source = f"{str(version.source).rpartition('/')[0]}/users"
        bring(source, place.users, tracking, lambda folder: users_fault(folder, known), fault)
    return place


def bundle_fault(system: System, folder: Path, digest: str) -> str:
    """Why the folder is not this bundle of this system; empty when it is."""
    if not folder.is_dir():
        return "it is not there"
    try:
        found, owner = verify(folder), show(folder)["system"]
    except (BadBundle, OSError) as problem:
        return str(problem)
    if found != f"sha256:{digest}":
        return f"it is bundle {found}"
    return "" if owner == system.name else f"it is a bundle of the system {owner}, not of {system.name}"


def users_fault(folder: Path, digest: str) -> str:
    """Why the folder is not the states of this digest (empty: nobody noted one); empty when it is."""
    if not folder.is_dir():
        return "it is not there"
    return "" if not digest or digest_of(folder) == digest else "its content is not what was registered"


def bring(source: str, place: Path, tracking: str, fault_of: Callable[[Path], str], why: str) -> None:
    """Download `source` beside `place`, look at it, and move it in. Raises `NotFetched`, which also says `why` it had to be fetched."""
    work = place.parent / f".{place.name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        got = _downloaded(source, work, tracking, why)
        if fault := fault_of(got):
            problem = NotFetched(
                f"{source} was downloaded and refused: {fault}; register the bundle again, or move the alias to another version"
            )
            problem.refused = True
            raise problem
        move_in(got, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _downloaded(source: str, work: Path, tracking: str, why: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(work), tracking_uri=tracking))
    except (MlflowException, OSError) as problem:
        said = " ".join(str(problem).split())[:300]
        raise NotFetched(
            f"{source} cannot be fetched ({said}), and under {work.parent} {why}: try again when the store answers"
        ) from problem
