"""Where released bundles lie on this machine, and which one answers: files to read, so that a server never imports MLflow.

<home>/bundles/<digest>/        a bundle
<home>/users/<digest>/          `serving.state.user_state.StateTable`: what was known of every user when the bundle was learnt
<home>/weights/<digest>/        `components.start.Start`: what a daily training goes on from
<home>/champion/<system>.json   the release file: {"bundle": PATH, "users": PATH, "digest": "sha256:…"}, the paths from beside it.
                                A running server follows it; it is replaced in one step
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from serving.system import load_system


class NothingReleased(ValueError):
    """No bundle of the system has been released under this home."""


@dataclass(frozen=True)
class ReleasedBundle:
    """A bundle that can answer, and the users it knows."""

    bundle: Path
    users: Path


def place_of(digest: str, home: Path) -> ReleasedBundle:
    """Where the bundle of this digest lies, or would."""
    return ReleasedBundle(home / "bundles" / digest, home / "users" / digest)


def weights_of(digest: str, home: Path) -> Path:
    """Where what a daily training goes on from lies, or would."""
    return home / "weights" / digest


def put_weights(weights: Path, digest: str, home: Path) -> None:
    """Keep them under `home`."""
    _keep(weights, weights_of(digest, home))


def put(bundle: Path, users: Path, home: Path) -> ReleasedBundle:
    """Keep a bundle and its users under `home`; again for the same bundle changes nothing."""
    shelved = place_of(bundle.name, home)
    _keep(bundle, shelved.bundle)
    _keep(users, shelved.users)
    return shelved


def release_file(name: str, home: Path) -> Path:
    """What a server of the system of this name follows."""
    return home / "champion" / f"{name}.json"


def choose(name: str, digest: str, home: Path) -> None:
    """Make the bundle the one that answers for the system of this name."""
    told = {"bundle": f"../bundles/{digest}", "users": f"../users/{digest}", "digest": f"sha256:{digest}"}
    replace_file(release_file(name, home), json.dumps(told) + "\n")


def chosen(name: str, home: Path) -> str | None:
    """Digest, hexadecimal, of the bundle that answers for the system of this name; None when none does."""
    file = release_file(name, home)
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text())
        return str(told.get("digest") or told["bundle"]).removeprefix("sha256:")  # older files: the digest alone
    except (ValueError, KeyError, AttributeError) as problem:
        raise NothingReleased(f"{file} is no release file ({problem}): run `shortlist sync {name}` to write it again") from problem


def released(system: str, home: Path, bundle: Path | None = None) -> ReleasedBundle:
    """What answers for the system: its champion, or the given bundle folder of this home.

    Raises `NothingReleased` when there is none, or when its folder is gone.
    """
    name = load_system(system).name
    digest = bundle.resolve().name if bundle is not None else chosen(name, home)
    if digest is None:
        raise NothingReleased(f"no bundle of {name} is released under {home}: run `shortlist train {system}` first, or give --bundle DIR")
    found = ReleasedBundle(bundle or home / "bundles" / digest, home / "users" / digest)
    for folder in (found.bundle, found.users):
        if not folder.is_dir():
            raise NothingReleased(
                f"{folder} is gone: `shortlist sync {system}` fetches it from the registry, `shortlist train {system}` makes it again"
            )
    return found


def replace_file(file: Path, text: str) -> None:
    """Write a file in one step and to the disk: who reads it sees the old text or the new; two writers do not meet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as fresh:
        fresh.write(text)
        fresh.flush()
        os.fsync(fresh.fileno())
    os.chmod(fresh.name, 0o644)
    os.replace(fresh.name, file)


def move_in(fresh: Path, place: Path) -> None:
    """Put a complete folder in its place by renames; what lay there goes."""
    aside = place.with_name(f".{place.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if place.is_dir():
        place.rename(aside)
    try:
        fresh.rename(place)
    except OSError:
        shutil.rmtree(fresh)  # another process was first, with the same content
        if not place.is_dir():
            raise
    shutil.rmtree(aside, ignore_errors=True)


def _keep(folder: Path, place: Path) -> None:
    """Hard links beside the place, then one rename: a killed run leaves no half bundle."""
    if place.is_dir():
        return
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=_link)
    move_in(partial, place)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
