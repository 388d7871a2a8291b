"""Who is at work under a home: runs and fetches share it, `shortlist clean` wants it alone, and scheduled trainings come one at a time.

Locks of the operating system: they end with the process that holds them, however it ends.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HomeInUse(ValueError):
    """Somebody else is at work there."""


@contextmanager
def occupied(home: Path) -> Iterator[None]:
    """Others may work here too, but nobody cleans up."""
    with _file(home, "in-use.lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Nobody else works here. Raises `HomeInUse` at once when somebody does."""
    with _file(home, "in-use.lock") as file:
        _take(file, f"a run or a fetch is at work under {home}: clean when it has ended")
        yield


@contextmanager
def one_training(home: Path, system: str) -> Iterator[None]:
    """No other training that asked for this is at work. Raises `HomeInUse` at once when one is."""
    with _file(home, f"training-{system}.lock") as file:
        _take(file, f"another training of {system} is at work under {home}: this one is not started")
        yield


@contextmanager
def by_turns(home: Path, name: str) -> Iterator[None]:
    """Wait until nobody else does what is named so under this home."""
    with _file(home, f"{name}.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _file(home: Path, name: str) -> Iterator[int]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / name).open("w") as file:
        yield file.fileno()


def _take(file: int, otherwise: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise HomeInUse(otherwise) from problem
