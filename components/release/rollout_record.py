"""What a rollout controller writes down before it does anything: the state, what a person asked for, what happened so far."""

import msgspec

from components.release.rollout_state import ENDED, REVOCABLE, Rollout, told, undo

_LINES = 200  # of the history


class RolloutLine(msgspec.Struct, frozen=True):
    """One decision."""

    number: int  # counted from 0
    at: float  # seconds since 1970
    rollout: str
    phase: str
    percent: int
    sentence: str


class RolloutRecord(msgspec.Struct, frozen=True):
    """Everything there is to know. `revision` is the store's, and changes with every write."""

    rollout: Rollout | None = None
    lines: tuple[RolloutLine, ...] = ()
    told: int = 0  # lines that were made Events
    start: str = ""  # digest of the bundle a person wants rolled out
    abort: str = ""  # a person's reason
    poked: float = 0.0  # when somebody said that the registry has changed
    revision: str = ""

    def decided(self, rollout: Rollout, now: float, **more: object) -> "RolloutRecord":
        """The record after a decision; with a line where the state is told otherwise than before."""
        before = told(self.rollout) if self.rollout else ""
        lines = self.lines
        if told(rollout) != before:
            number = lines[-1].number + 1 if lines else 0
            lines = (*lines, RolloutLine(number, now, rollout.id, rollout.phase, rollout.percent, told(rollout)))[-_LINES:]
        return msgspec.structs.replace(self, rollout=rollout, lines=lines, **more)

    @property
    def untold(self) -> tuple[RolloutLine, ...]:
        return tuple(line for line in self.lines if line.number >= self.told)


class Conflict(ValueError):
    """Somebody else wrote the record meanwhile: read it again."""


def wished(record: RolloutRecord, wish: str, more: str, now: float) -> RolloutRecord:
    """The record with a person's wish: start (a digest), pause, resume, abort (a reason), undo. Raises `ValueError`."""
    rollout = record.rollout
    if wish == "start":
        if rollout is not None and rollout.phase not in (*ENDED, "warm"):
            raise ValueError(f"rollout {rollout.id} is going on: abort it first, or wait; {told(rollout)}")
        return msgspec.structs.replace(record, start=more)
    if rollout is None:
        raise ValueError(f"there is no rollout to {wish}: `shortlist rollout start` begins one")
    if wish == "undo":
        return record.decided(undo(rollout, now), now)
    if rollout.phase not in REVOCABLE:
        raise ValueError(f"there is nothing to {wish}: {told(rollout)}")
    if wish == "abort":
        return msgspec.structs.replace(record, abort=more)
    return record.decided(msgspec.structs.replace(rollout, paused=wish == "pause"), now)
