"""`promote`, `rollback` and `history`: a person's hand on the alias that decides who answers.

The bundle is fetched and proven before the alias moves: nothing that cannot answer is made champion.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.release import releases as shelf
from components.release.fetch import fetch
from components.release.registry import (
    CHALLENGER,
    CHAMPION,
    UnknownBundle,
    address,
    digest_in,
    exists,
    holder,
    model_name,
    open_registry,
    versions,
)
from components.release.succession import SINCE, UNDONE, before, crown, now
from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SHORTEST_DIGEST = 6  # letters of a digest that name a bundle


@dataclass(frozen=True)
class Line:
    """One version, as `shortlist history` lists it."""

    version: str
    bundle: str  # digest, hexadecimal; empty: none of ours
    registered_ms: int  # since 1970
    aliases: tuple[str, ...]
    since: str  # when it last became champion; empty: never
    sentence: str  # the gate's
    answers: bool  # here and now


def promote(system: System, home: Path, tracking: str = "", which: str = "") -> str:
    """Make the version the champion and have it answer under `home`; a sentence on what was done.

    `which`: a version's number, the beginning of a bundle's digest, or empty: the challenger. Raises `UnknownBundle` when there is no such
    version, `NotFetched` when its bundle is nowhere to be had.
    """
    with _open(system, home, tracking) as client:
        version = _chosen(client, system, which)
        return _crowned(client, system, version, home, tracking)


def chosen_digest(system: System, home: Path, tracking: str = "", which: str = "") -> str:
    """Digest of the bundle that `promote` would promote. Raises `UnknownBundle`."""
    with _open(system, home, tracking) as client:
        return digest_in(_chosen(client, system, which))


def rollback(system: System, home: Path, tracking: str = "") -> str:
    """Make the version champion that was it before the present one; again: the one before that.

    Raises `UnknownBundle` when there is none.
    """
    name = model_name(system)
    with _open(system, home, tracking) as client:
        current = holder(client, name, CHAMPION)
        if current is None:
            raise UnknownBundle(f"{name} has no champion to roll back from: `shortlist promote {system.name}` names one")
        earlier = before(versions(client, name), current)
        if earlier is None:
            raise UnknownBundle(f"no version of {name} was champion before version {current.version}: promote one of `shortlist history`")
        said = _crowned(client, system, earlier, home, tracking)
        client.set_model_version_tag(name, current.version, UNDONE, now())
        return said


def history(system: System, home: Path, tracking: str = "") -> list[Line]:
    """Every version, newest first."""
    served = shelf.chosen(system.name, home)
    with _open(system, home, tracking) as client:
        return [
            Line(
                version=str(version.version),
                bundle=version.tags.get("bundle", ""),
                registered_ms=int(version.creation_timestamp or 0),
                aliases=tuple(version.aliases),
                since=version.tags.get(SINCE, ""),
                sentence=version.tags.get("gate.sentence", ""),
                answers=bool(served) and version.tags.get("bundle") == served,
            )
            for version in versions(client, model_name(system))
        ]


def _open(system: System, home: Path, tracking: str) -> "AbstractContextManager[MlflowClient]":
    if not exists(home, tracking):
        raise UnknownBundle(f"nothing of {system.name} is registered under {home}: `shortlist train` does, or give --registry URI")
    return open_registry(home, tracking, alone=True)


def _chosen(client: "MlflowClient", system: System, which: str) -> "ModelVersion":
    name = model_name(system)
    if not which:
        found = holder(client, name, CHALLENGER)
        if found is None:
            raise UnknownBundle(f"{name} has no challenger: name a version of `shortlist history {system.name}`")
        return found
    every = versions(client, name)
    if which.isdecimal() and len(which) < SHORTEST_DIGEST:
        found = next((version for version in every if str(version.version) == which), None)
        if found is None:
            raise UnknownBundle(f"{name} has no version {which}: it has {', '.join(str(version.version) for version in every) or 'none'}")
        return found
    digest = which.removeprefix("sha256:")
    same = [version for version in every if version.tags.get("bundle", "").startswith(digest)]
    if len(digest) < SHORTEST_DIGEST or len(same) != 1:
        raise UnknownBundle(f"{which!r} names {len(same)} versions of {name}: give a number of `shortlist history`, or more letters")
    return same[0]


def _crowned(client: "MlflowClient", system: System, version: "ModelVersion", home: Path, tracking: str) -> str:
    digest, name = digest_in(version), model_name(system)
    reigning = client.get_registered_model(name).aliases.get(CHAMPION)
    fetch(system, version, home, address(home, tracking))
    if str(reigning) != str(version.version):
        crown(client, version)
    shelf.choose(system.name, digest, home)
    was = f"; before, version {reigning} did" if reigning and str(reigning) != str(version.version) else ""
    return f"Version {version.version} of {name} answers (bundle {digest[:12]}){was}."
