"""Where released bundles lie on this machine, and which one answers: a file to read, so that a server never imports MLflow.

<home>/bundles/<digest>/        a bundle
<home>/users/<digest>/          `serving.state.user_state.StateTable`: what was known of every user when the bundle was learnt
<home>/champion/<system>.json   the digest that answers, as the registry last said
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from serving.system import load_system


class NothingReleased(ValueError):
    """No bundle of the system has been released under this home."""


@dataclass(frozen=True)
class ReleasedBundle:
    """A bundle that can answer, and the users it knows."""

    bundle: Path
    users: Path


def put(bundle: Path, users: Path, home: Path) -> ReleasedBundle:
    """Keep a bundle and its users under `home`; again for the same bundle changes nothing."""
    shelved = ReleasedBundle(home / "bundles" / bundle.name, home / "users" / bundle.name)
    _keep(bundle, shelved.bundle)
    _keep(users, shelved.users)
    return shelved


def choose(name: str, digest: str, home: Path) -> None:
    """Make the bundle the one that answers for the system of this name."""
    note = _note(name, home)
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(".new")
    fresh.write_text(json.dumps({"bundle": digest}))
    fresh.replace(note)


def released(system: str, home: Path, bundle: Path | None = None) -> ReleasedBundle:
    """What answers for the system: its champion, or the given bundle folder of this home.

    Raises `NothingReleased` when there is none, or when its folder is gone.
    """
    name = load_system(system).name
    if bundle is not None:
        digest = bundle.resolve().name
    elif not _note(name, home).is_file():
        raise NothingReleased(f"no bundle of {name} is released under {home}: run `shortlist train {system}` first, or give --bundle DIR")
    else:
        digest = json.loads(_note(name, home).read_text())["bundle"]
    found = ReleasedBundle(bundle or home / "bundles" / digest, home / "users" / digest)
    for folder in (found.bundle, found.users):
        if not folder.is_dir():
            raise NothingReleased(f"{folder} is gone: run `shortlist train {system}` again, it goes on from the steps that are kept")
    return found


def _keep(folder: Path, place: Path) -> None:
    """Hard links beside the place, then one rename: a killed run leaves no half bundle."""
    if place.is_dir():
        return
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=_link)
    try:
        partial.rename(place)
    except OSError:
        shutil.rmtree(partial)  # another run was first, with the same content
        if not place.is_dir():
            raise


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _note(name: str, home: Path) -> Path:
    return home / "champion" / f"{name}.json"
