"""The event log: what was acknowledged is in it, once, whatever happens to the process."""

from collections.abc import Sequence
from typing import Protocol

from feature_repo.schema import SECONDS_A_DAY
from serving.messages import Event
from serving.state.store import StateEvent


class LogUnavailable(RuntimeError):
    """The log could not take the events; none of them may be acknowledged."""


class EventLog(Protocol):
    def append(self, events: Sequence[Event]) -> list[bool]:
        """Make the events durable; for each, was it new? Raises `LogUnavailable`, and then none was acknowledged."""

    def close(self) -> None: ...


def event_day(event: Event) -> float:
    return event.timestamp.timestamp() / SECONDS_A_DAY


def state_event(event: Event) -> StateEvent:
    """What of a wire event changes its user's state."""
    return StateEvent(event.event_id, event.user_id, event.item_id, event.event_type, event_day(event))
