"""What keeps the states of users promises: one packed value a user, read once a request, changed atomically."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


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


Change = Callable[[str, bytes | None, bytes | None], tuple[bytes, bytes]]


class StateStore(Protocol):
    """Values by user. `change` is atomic a user; every method raises `StoreUnavailable`."""

    def get(self, user_id: str) -> bytes | None:
        """The state value alone: the one read of a request."""

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        """Replace each user's pair with `fold(user_id, state value, recent events)`."""

    def close(self) -> None: ...
