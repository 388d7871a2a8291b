"""Where users' states live: one packed value a user, read once a request, changed by events that may arrive twice or late.

A stored value is the state at a cut with the events since folded in, and beside it those events themselves (33 bytes each). So an event
that comes again is known by its id, and when a bundle with a later cut is served, the value is folded anew from that cut's table.

`sqlite:PATH` is shared by the workers of one machine, `redis://…` (serving/state/redis.py) by those of many.
"""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.bundle.catalogue import item_key
from serving.state.sqlite import SqliteStore
from serving.state.store import Change, StateEvent, StateStore
from serving.state.user_state import SESSION_TYPES, BadState, StateTable, UserState
from serving.system import Learning

KEEP_DAYS = 28.0  # events this much older than the cut are let go: a roll-back goes no further
RECENT = np.dtype([("id", "S16"), ("key", "<u8"), ("day", "<f8"), ("kind", "u1")])  # one event since the cut
_CUT = np.dtype("<f8")


def open_store(url: str, timeout_ms: float) -> StateStore:
    """The store a `--state` option names; `timeout_ms` bounds a read of Redis and a wait for SQLite's lock."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest:
        return SqliteStore(Path(rest), timeout_ms / 1000)
    if scheme in ("redis", "rediss", "unix"):
        from serving.state.redis import RedisStore

        return RedisStore(url, timeout_ms / 1000)
    raise ValueError(f"unknown state store {url!r}: expected sqlite:PATH, redis://HOST:PORT/DB or unix://PATH")


class States:
    """Users' states as one bundle sees them: the cut's table with the stored events folded in."""

    def __init__(self, store: StateStore, table: StateTable | None, learning: Learning) -> None:
        self.store, self._table, self._learning = store, table, learning
        self.cut_day = table.cut_day if table is not None else 0.0
        self._cut = np.asarray(self.cut_day, _CUT).tobytes()

    def known(self, user_id: str) -> UserState:
        """The state at the cut, without a read: what is left when the store is down."""
        index = self._table.index(user_id) if self._table is not None else -1
        return self._table[index] if self._table is not None and index >= 0 else UserState(user_id)

    def some(self, count: int) -> list[UserState]:
        """A few states of the table, spread over it."""
        table = self._table
        return [table[index] for index in range(0, len(table), max(len(table) // count, 1))][:count] if table is not None else []

    def read(self, user_id: str) -> UserState:
        """The state with all events since; a damaged value is folded again. Raises `StoreUnavailable`."""
        value = self.store.get(user_id)
        if value is None:
            return self.known(user_id)
        state = self._unpacked(value)
        if state is None:
            self.store.change([user_id], self._fold({}))
            state = self._unpacked(self.store.get(user_id))
        return state or self.known(user_id)

    def _unpacked(self, value: bytes | None) -> UserState | None:
        """The state in a value of this cut; None when it is another cut's, or damaged."""
        if value is None or value[:8] != self._cut:
            return None
        try:
            return UserState.unpack(value[8:])
        except BadState:
            return None

    def apply(self, events: Iterable[StateEvent]) -> None:
        """Fold events into their users' states. Applying one again changes nothing. Raises `StoreUnavailable`."""
        by_user: dict[str, list[StateEvent]] = {}
        for event in events:
            if event.kind in SESSION_TYPES:
                by_user.setdefault(event.user_id, []).append(event)
        if by_user:
            self.store.change(sorted(by_user), self._fold(by_user))

    def _fold(self, by_user: dict[str, list[StateEvent]]) -> Change:
        def fold(user_id: str, value: bytes | None, recent: bytes | None) -> tuple[bytes, bytes]:
            had = np.frombuffer((recent or b"")[: len(recent or b"") // RECENT.itemsize * RECENT.itemsize], RECENT)
            fresh = news = _fresh(had, by_user.get(user_id, []))
            state = self._unpacked(value)
            if state is None:  # another bundle's cut, or damaged: start from this one's table
                state, had = self.known(user_id), had[had["day"] >= self.cut_day - KEEP_DAYS]
                news = np.concatenate([had, fresh])
            if state.consent == "minimal":  # nothing personal may be kept of these users
                return self._cut + state.pack(), b""
            for event in news[news["day"] >= self.cut_day]:
                state = self._with(state, int(event["key"]), SESSION_TYPES[event["kind"]], float(event["day"]))
            return self._cut + state.pack(), np.concatenate([had, fresh]).tobytes()

        return fold

    def _with(self, state: UserState, key: int, kind: str, day: float) -> UserState:
        return state.with_positive(key, day) if kind in self._learning.positives else state.with_session_event(key, kind, day)


def _fresh(had: NDArray[np.void], events: list[StateEvent]) -> NDArray[np.void]:
    """The events not yet among `had`, as RECENT rows, each id once."""
    rows: dict[bytes, tuple[bytes, int, float, int]] = {}
    for event in events:
        name = blake2b(event.event_id.encode(), digest_size=8).hexdigest().encode()
        rows.setdefault(name, (name, item_key(event.item_id), event.day, SESSION_TYPES.index(event.kind)))
    known = set(had["id"].tolist())
    return np.array([row for name, row in rows.items() if name not in known], RECENT)
