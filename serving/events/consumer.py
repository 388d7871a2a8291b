"""The one consumer: states are what the log says up to a position that is kept with them and moves with them, all or nothing.

Nothing waits in memory to be folded: what is acknowledged is in the log, and whoever finds the states behind it reads on from where they
stand, after a restart, an outage of the store or its loss. Several workers may do so at once: of two that fold the same part one finds the
position moved and does nothing.
"""

from collections.abc import Callable

from serving.events.log import EventLog, Position, packed, unpacked
from serving.state.states import States

_TOGETHER = 1_000  # entries of the log folded in one change of the store


class Consumer:
    """Folds one log into one store. Methods raise `StoreUnavailable` and `LogUnavailable`."""

    def __init__(self, log: EventLog, states: Callable[[], States]) -> None:
        self._log, self._open = log, states
        self._states: States | None = None
        self._position = Position()  # as it was last read from the store
        self.behind = 0  # entries of the log that are not in the states, as of the last look

    def advance(self) -> bool:
        """Fold the next part of the log; False when there is none."""
        states = self._states = self._states or self._open()
        kept = states.store.position()
        position, whole = unpacked(kept)
        self._position = position
        part = self._log.read(position, _TOGETHER, states.floor_day)
        if part.reached == position and whole:
            self.behind = part.behind
            return False
        if states.commit(kept, packed(part.reached, whole or not part.behind), part.events):
            self._position, self.behind = part.reached, part.behind
        return True

    def look(self) -> None:
        """Count what is behind while the store is down: from where it stood when it was last there, from the start where it never was."""
        self.behind = self._log.behind(self._position)

    def close(self) -> None:
        self._log.close()
        if self._states is not None:
            self._states.store.close()
