"""Events this worker took lately: what lists are made from, besides the cut's table, while the store is down or is made again.

It is no queue: every event in it is in the log, and states are folded from there. It only keeps answers as right as they can be meanwhile.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable

from serving.state.store import StateEvent

_USERS, _EACH = 5_000, 64  # that are remembered, and the latest events of each


class Lately:
    """The latest events of the users who sent some last. Safe between threads."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, deque[tuple[StateEvent, bool]]] = OrderedDict()  # with: was it in the states when acknowledged?
        self._waiting = False
        self._lock = threading.Lock()

    def add(self, events: Iterable[StateEvent], folded: bool) -> None:
        with self._lock:
            self._waiting |= not folded
            for event in events:
                self._events.setdefault(event.user_id, deque(maxlen=_EACH)).append((event, folded))
                self._events.move_to_end(event.user_id)
            while len(self._events) > _USERS:
                self._events.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """A user who was deleted."""
        with self._lock:
            self._events.pop(user_id, None)

    def caught_up(self) -> None:
        """The states have all of them now."""
        if not self._waiting:
            return
        with self._lock:
            self._waiting = False
            for events in self._events.values():
                had = [(event, True) for event, _ in events]
                events.clear()
                events.extend(had)

    def of(self, user_id: str) -> list[StateEvent]:
        """The user's events, oldest first."""
        with self._lock:
            return [event for event, _ in self._events.get(user_id, ())]

    def waiting(self, user_id: str) -> list[StateEvent]:
        """Those of them that were not in the states when they were acknowledged."""
        with self._lock:
            return [event for event, folded in self._events.get(user_id, ()) if not folded]
