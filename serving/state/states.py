"""Where users' states live: one packed value a user, read once a request, changed by events that may arrive twice or late.

A stored value is the state at a cut with the events since folded in, and beside it those events themselves (40 bytes each, the latest
4,096). So an event that comes again is known by its id, and when a bundle with a later cut is served, the value is folded anew from that
cut's table. How far the log is folded stands in the store too and moves with the values, all or nothing (`commit`).

What an event does to a state is what it means to the system (`serving/event_meanings.py`); one that means nothing to it stays in the log.

`sqlite:PATH` is shared by the workers of one machine, `redis://…` (serving/state/redis.py) by those of many.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.event_meanings import type_code
from serving.messages import ERASE
from serving.state.feast_row import HashRows, Row, SqliteRows
from serving.state.fold import RECENT, Fold, fresh
from serving.state.sqlite import SqliteStore
from serving.state.store import Change, StateEvent, StateStore
from serving.state.user_state import BadState, StateTable, UserState
from serving.system import Learning

KEEP_DAYS = 28.0  # events this much older than the cut are let go: a roll-back goes no further
RECENT_LENGTH = 4096  # of them kept, the last to come: more than a person makes between two releases
_CUT = np.dtype("<f8")
_ERASED = type_code(ERASE)


def open_store(url: str, timeout_ms: float, log: str = "", rows: HashRows | None = None) -> StateStore:
    """The store a `--state` option names; `timeout_ms` bounds a read of Redis and a wait for SQLite's lock. `log`: what is folded there."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest:
        return SqliteStore(Path(rest), timeout_ms / 1000, log=log)
    if scheme in ("redis", "rediss", "unix"):
        from serving.state.redis import RedisStore

        return RedisStore(url, timeout_ms / 1000, log, rows)
    raise ValueError(f"unknown state store {url!r}: expected sqlite:PATH, redis://HOST:PORT/DB or unix://PATH")


@dataclass(frozen=True)
class Online:
    """Feast's online store beside the states: its row of a user takes the place of the one from the cut.

    Nothing of it stops an answer: where it cannot be read, or knows nothing of the user, the cut's row stays, and `missing` is told.
    """

    schema: int  # key of the features' names
    rows: SqliteRows | None  # None: they come with the state
    age: Callable[[float], None]  # told the day a row that is used speaks of
    missing: Callable[[], None]

    def put(self, user_id: str, state: UserState, row: Row | None) -> UserState:
        try:
            row = self.rows.read(user_id) if self.rows is not None else row
        except sqlite3.Error:
            row = None
        if row is None or isnan(row.day):
            self.missing()
            return state
        self.age(row.day)
        return state.with_features(row.values, self.schema)


class States:
    """Users' states as one bundle sees them: the cut's table with the stored events folded in."""

    def __init__(
        self, store: StateStore, table: StateTable | None, learning: Learning, online: Online | None = None,
        deleted: Callable[[str], float | None] = lambda _: None, delete: Callable[[str, float], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._online, self.deleted, self._delete = online, deleted, delete  # the day a user was deleted (None: never); who is told of one
        self.store, self._table, self._learning = store, table, learning
        self.cut_day = table.cut_day if table is not None else 0.0
        self._cut = np.asarray(self.cut_day, _CUT).tobytes()
        self._events = Fold(learning)

    def close(self) -> None:
        self.store.close()
        if self._online is not None and self._online.rows is not None:
            self._online.rows.close()

    def known(self, user_id: str) -> UserState:
        """The state at the cut, without a read: what is left when the store is down. Of a deleted user what they consented to, alone."""
        if self.deleted(user_id) is not None:
            return self._blank(user_id)
        index = self._table.index(user_id) if self._table is not None else -1
        return self._table[index] if self._table is not None and index >= 0 else UserState(user_id)

    def _blank(self, user_id: str) -> UserState:
        return UserState(user_id, consent=self.consent(user_id))

    def consent(self, user_id: str) -> str:
        """What the user allows to be kept, as of the cut; everything, of one who is not in its table."""
        index = self._table.index(user_id) if self._table is not None else -1
        return bytes(self._table.consent[index]).decode() if self._table is not None and index >= 0 else "full"

    def some(self, count: int) -> list[UserState]:
        """A few states of the table, spread over it."""
        table = self._table
        return [table[index] for index in range(0, len(table), max(len(table) // count, 1))][:count] if table is not None else []

    def unused(self, types: Iterable[str]) -> dict[str, int]:
        """How many events of each type that changes no state."""
        return dict(Counter(name for name in types if name not in self._events.told))

    @property
    def floor_day(self) -> float:
        """Events of before this moment never change a state, under this bundle or one it is rolled back to."""
        return self.cut_day - KEEP_DAYS

    def read(self, user_id: str) -> UserState:
        """The state with all events since; a damaged value is folded again. Raises `StoreUnavailable`."""
        return self.look(user_id)[0]

    def look(self, user_id: str) -> tuple[UserState, bool]:
        """The state, and whether the store has caught up with its log: one that lost everything has not. Raises `StoreUnavailable`."""
        found = self.peek(user_id)
        if found is not None:
            return found
        self.store.change([user_id], self._fold({}))
        value, whole, row = self.store.get(user_id)
        return self._fresh(user_id, self._unpacked(value) or self.known(user_id), row), whole

    def peek(self, user_id: str) -> tuple[UserState, bool] | None:
        """`look`, but None where the value has to be folded anew first: of another cut, or damaged. Raises `StoreUnavailable`."""
        value, whole, row = self.store.get(user_id)
        state = self.known(user_id) if value is None else self._unpacked(value)
        return None if state is None else (self._fresh(user_id, state, row), whole)

    def _fresh(self, user_id: str, state: UserState, row: Row | None) -> UserState:
        """The state with the features that Feast's online store has now, if it has any; a deleted user's were theirs of before."""
        return state if self._online is None or self.deleted(user_id) is not None else self._online.put(user_id, state, row)

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
        by_user = self._by_user(events)
        if by_user:
            self.store.change(sorted(by_user), self._fold(by_user))

    def commit(self, expected: bytes | None, reached: bytes, events: Iterable[StateEvent]) -> bool:
        """`apply`, and the position in the log moved with it; False, and nothing done, when it stands elsewhere by now.

        Deletions are told first: whoever took one may have been killed before the book of deleted users knew.
        """
        by_user = self._by_user(events)
        for user_id, mine in by_user.items():
            last = max((event.day for event in mine if event.kind == ERASE), default=None)
            if last is not None and (self.deleted(user_id) or -np.inf) < last:
                self._delete(user_id, last)
        return self.store.commit(expected, reached, sorted(by_user), self._fold(by_user))

    def with_events(self, state: UserState, events: Iterable[StateEvent]) -> UserState:
        """A state with events that no store has yet."""
        rows = fresh(np.empty(0, RECENT), [event for event in events if event.kind in self._events.told or event.kind == ERASE])
        erased, day = self._erased(state.user_id, rows)
        if erased >= 0:
            state, rows = self._blank(state.user_id), rows[erased + 1 :]
        return state if state.consent != "full" else self._events.folded(state, rows[rows["day"] > day], self.cut_day)

    def _erased(self, user_id: str, rows: NDArray[np.void]) -> tuple[int, float]:
        """Place of the last deletion among RECENT rows, or -1; and the day up to which nothing counts."""
        at = np.flatnonzero(rows["type"] == _ERASED)
        told = self.deleted(user_id)
        days = rows["day"][at].tolist() + ([] if told is None else [told])
        return int(at[-1]) if len(at) else -1, max(days, default=-np.inf)

    def _by_user(self, events: Iterable[StateEvent]) -> dict[str, list[StateEvent]]:
        """Those that can change a state: of a type that means something to it, and not of before every table; deletions too."""
        by_user: dict[str, list[StateEvent]] = {}
        for event in events:
            if event.kind == ERASE or (event.kind in self._events.told and event.day >= self.floor_day):
                by_user.setdefault(event.user_id, []).append(event)
        return by_user

    def _fold(self, by_user: dict[str, list[StateEvent]]) -> Change:
        def fold(user_id: str, value: bytes | None, recent: bytes | None) -> tuple[bytes, bytes]:
            had = np.frombuffer((recent or b"")[: len(recent or b"") // RECENT.itemsize * RECENT.itemsize], RECENT)
            new = news = fresh(had, by_user.get(user_id, []))
            state = self._unpacked(value)
            if state is None:  # another bundle's cut, or damaged: start from this one's table
                state, had = self.known(user_id), had[(had["day"] >= self.cut_day - KEEP_DAYS) | (had["type"] == _ERASED)]
                news = np.concatenate([had, new])
            kept = np.concatenate([had, new])
            erased, day = self._erased(user_id, kept)
            if erased >= len(had) or (erased >= 0 and news is not new):  # deleted just now, or the state is made anew
                state, news = self._blank(user_id), kept[erased + 1 :]
            news = news[news["day"] > day]
            if erased >= 0:
                kept = kept[(kept["type"] == _ERASED) | ((np.arange(len(kept)) > erased) & (kept["day"] > day))]
            if state.consent != "full":  # nothing personal may be kept of these users
                return self._cut + state.pack(), kept[kept["type"] == _ERASED].tobytes()
            return self._cut + self._events.folded(state, news, self.cut_day).pack(), kept[-RECENT_LENGTH:].tobytes()

        return fold
