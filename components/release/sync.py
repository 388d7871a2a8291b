"""The registry is in charge: what its `champion` points at is fetched, proven, and put where servers look.

One reconciler for a laptop and a cluster. It asks what should answer and makes it so; asked again, it changes nothing. Whatever is wrong
with the registry, the version or the download comes out as a sentence, and what answered goes on answering.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from components.release import releases as shelf
from components.release.fetch import NotFetched, fetch
from components.release.registry import CHAMPION, address, digest_in, exists, holder, model_name, open_registry, store
from components.release.succession import note
from serving.system import System

LONGEST_SECONDS = 300.0  # between two tries to fetch the same version


@dataclass(frozen=True)
class Synced:
    """What answers now, and whether that was just changed."""

    digest: str | None  # hexadecimal, of the bundle
    changed: bool
    sentence: str
    put_off: bool = False  # the champion is a version that was not to be fetched now


def sync(system: System, home: Path, tracking: str = "", not_now: str = "") -> Synced:
    """Have the champion's bundle answer under `home`, but do not fetch the version `not_now`.

    Raises a `ValueError` that says what is wrong; what answered then still does.
    """
    name, served = model_name(system), _served(system, home)
    if not exists(home, tracking):
        return Synced(served, False, f"nothing of {system.name} is registered under {home}: `shortlist train {system.name}` does")
    with open_registry(home, tracking) as client:
        version = holder(client, name, CHAMPION)
        if version is None:
            return Synced(served, False, f"{name} has no champion: {_answers(served)}; `shortlist promote` names one")
        digest = digest_in(version)
        if digest == served:
            return Synced(digest, False, f"version {version.version} of {name} answers (bundle {digest[:12]})")
        if str(version.version) == not_now:
            said = f"version {version.version} of {name} cannot be fetched for now; {_answers(served)} and goes on"
            return Synced(served, False, said, put_off=True)
        try:
            fetch(system, version, home, address(home, tracking))
        except NotFetched as problem:
            problem.version = str(version.version)
            raise
        shelf.choose(system.name, digest, home)
        note(client, version)
    return Synced(
        digest, True, f"version {version.version} of {name} answers from now on (bundle {digest[:12]}); before, {_answers(served)}"
    )


def _served(system: System, home: Path) -> str | None:
    """Digest of what answers now, if it is whole enough to; None else."""
    try:
        digest = shelf.chosen(system.name, home)
    except shelf.NothingReleased:
        return None
    place = shelf.place_of(digest, home) if digest else None
    return digest if place and place.bundle.is_dir() and place.users.is_dir() else None


def _answers(served: str | None) -> str:
    return f"bundle {served[:12]} answered" if served else "nothing answered"


@dataclass
class Reconciler:
    """`sync` again and again, without asking a file that has not changed or fetching what has just failed."""

    system: System
    home: Path
    tracking: str = ""
    _seen: str = ""
    _failed: str = ""  # version that could not be fetched,
    _again_at: float = 0.0  # when it may be tried again, on the monotonic clock,
    _pause_seconds: float = 1.0  # and how long that was put off
    _told: str = ""

    def step(self, say: Callable[[str], None]) -> Synced | None:
        """Make it so, and say what is new. None when nothing was asked or something is wrong."""
        stamp = _stamp(self.home, self.tracking)
        if stamp and stamp == self._seen:
            return None
        try:
            found = sync(self.system, self.home, self.tracking, self._failed if time.monotonic() < self._again_at else "")
        except (ValueError, OSError) as problem:  # a full disk, too, is no reason to stop looking
            if isinstance(problem, NotFetched):
                self._put_off(problem.version)
            self._tell(f"{problem}. {_answers(_served(self.system, self.home)).capitalize()} and goes on", say)
            return None
        if not found.put_off:  # one that is put off is asked for again, though the registry's file stays as it is
            self._seen, self._failed = stamp, ""
        self._tell(found.sentence, say)
        return found

    def _put_off(self, version: str) -> None:
        """The same version is asked for after twice the pause."""
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_SECONDS) if version == self._failed else 2.0
        self._failed, self._again_at = version, time.monotonic() + self._pause_seconds

    def watch(self, every_seconds: float, stop: Event, say: Callable[[str], None]) -> None:
        """Until told to stop."""
        while True:
            self.step(say)
            if stop.wait(every_seconds):
                return

    def _tell(self, sentence: str, say: Callable[[str], None]) -> None:
        if sentence != self._told:
            say(sentence)
        self._told = sentence


def consult(system: System, home: Path, tracking: str = "") -> str:
    """`sync` for a command that answers once: nothing is asked where the registry's file is as it was last time.

    Returns what is wrong, for a person to read; empty when nothing is.
    """
    stamp, seen = _stamp(home, tracking), home / "champion" / f".{system.name}.seen"
    if not exists(home, tracking) or (stamp and seen.is_file() and seen.read_text() == stamp):
        return ""
    try:
        found = sync(system, home, tracking)
    except (ValueError, OSError) as problem:
        return f"{problem}. {_answers(_served(system, home)).capitalize()} and goes on"
    if stamp:
        shelf.replace_file(seen, stamp)
    return "" if found.digest else found.sentence


def _stamp(home: Path, tracking: str) -> str:
    """Changes whenever the registry's file does; empty where it is a server."""
    files = () if tracking else (store(home), store(home).with_name("mlflow.db-wal"))
    return " ".join(f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}" for found in (file.stat() for file in files if file.is_file()))
