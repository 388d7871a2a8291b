"""What keeps the states of users promises: one packed value a user, read once a request, changed with how far the log is folded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from serving.state.feast_row import Row


class StoreUnavailable(RuntimeError):
    """The store did not answer in its time, or refused."""


@dataclass(frozen=True)
class StateEvent:
    """What of an event changes a state."""

    event_id: str
    user_id: str
    item_id: str
    kind: str
    day: float  # days since 1970
    value: float = float("nan")  # quantity, seconds, stars; NaN: not said


Change = Callable[[str, bytes | None, bytes | None], tuple[bytes, bytes]]

WHOLE = b"W"  # a position that begins so: everything up to there is in the states; another is on its way there


class Found(NamedTuple):
    """What a read gives: a user's state value, and whether the store has caught up with its log since it was empty."""

    value: bytes | None
    whole: bool
    row: Row | None = None  # of the user's features, where they lie in the same store and were read with the state


class StateStore(Protocol):
    """Values by user, and the position in the log up to which they are folded. Every method raises `StoreUnavailable`."""

    def get(self, user_id: str) -> Found:
        """The state value alone: the one read of a request."""

    def position(self) -> bytes | None:
        """How far the log is folded; None: nothing of it is."""

    def commit(self, expected: bytes | None, reached: bytes, user_ids: Sequence[str], fold: Change) -> bool:
        """Change users and move the position from `expected` to `reached`, all or nothing; False when it stands elsewhere by now."""

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        """Replace each user's pair with `fold(user_id, state value, recent events)`, the position left where it is."""

    def close(self) -> None: ...
