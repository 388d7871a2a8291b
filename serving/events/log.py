"""The event log: what was acknowledged is in it, once, whatever happens to the process; states are folded from it and from nothing else."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from feature_repo.schema import SECONDS_A_DAY
from serving.messages import Event
from serving.state.store import WHOLE, StateEvent

Outcome = Literal["new", "duplicate", "conflict"]  # conflict: the id names another event already; nothing was changed


class LogUnavailable(RuntimeError):
    """The log could not take the events; none of them may be acknowledged."""


class Position(msgspec.Struct, frozen=True):
    """How far a log is folded: `at` its partitions' last entries. `mark` tells that it is still the log these were counted in."""

    log: str = ""
    at: dict[str, int] = {}
    mark: str = ""


class Part(NamedTuple):
    """What was read after a position."""

    events: list[StateEvent]
    reached: Position
    behind: int  # entries of the log after `reached`


class EventLog(Protocol):
    """Used by one thread."""

    def append(self, events: Sequence[Event]) -> list[Outcome]:
        """Make the events durable; for each, what became of it. Raises `LogUnavailable`, and then none was acknowledged."""

    def read(self, after: Position, limit: int, floor_day: float) -> Part:
        """Up to `limit` entries after a position of this log, from its start for another's. What is before `floor_day` may be left out."""

    def behind(self, after: Position) -> int:
        """Entries after a position."""

    def close(self) -> None: ...


def event_day(event: Event) -> float:
    return event.timestamp.timestamp() / SECONDS_A_DAY


def state_event(event: Event) -> StateEvent:
    """What of a wire event changes its user's state."""
    value = float("nan") if event.value is None else event.value
    return StateEvent(event.event_id, event.who, event.item_id, event.event_type, event_day(event), value)


def packed(position: Position, whole: bool) -> bytes:
    """A position as it is kept with the states. `whole`: the states hold everything up to there."""
    return (WHOLE if whole else b"P") + msgspec.json.encode(position)


def unpacked(value: bytes | None) -> tuple[Position, bool]:
    """A kept position, and whether it is whole; the log's start for none, or one that cannot be read."""
    if value is None:
        return Position(), False
    try:
        return msgspec.json.decode(value[1:], type=Position), value[:1] == WHOLE
    except msgspec.DecodeError:
        return Position(), False
