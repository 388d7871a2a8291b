"""Where users' states live: one packed value a user, read once a request, changed by events that may arrive twice or late.

A stored value is the state at a cut with the events since folded in, and beside it those events themselves (33 bytes each). So an event
that comes again is known by its id, and when a bundle with a later cut is served, the value is folded anew from that cut's table.

`sqlite:PATH` is shared by the workers of one machine, `redis://…` (serving/redis_store.py) by those of many.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.catalogue import item_key
from serving.sqlite import is_busy, open_wal
from serving.state import SESSION_TYPES, BadState, StateTable, UserState
from serving.system import Learning

KEEP_DAYS = 28.0  # events this much older than the cut are let go: a roll-back goes no further
RECENT = np.dtype([("id", "S16"), ("key", "<u8"), ("day", "<f8"), ("kind", "u1")])  # one event since the cut
_CUT = np.dtype("<f8")


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


Stored = tuple[bytes | None, bytes | None]  # state value, recent events
Change = Callable[[str, bytes | None, bytes | None], tuple[bytes, bytes]]


class StateStore(Protocol):
    """Values by user. `change` is atomic a user; every method raises `StoreUnavailable`."""

    def get(self, user_id: str) -> bytes | None:
        """The state value alone: the one read of a request."""

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        """Replace each user's pair with `fold(user_id, state value, recent events)`."""

    def close(self) -> None: ...


class SqliteStore:
    """A WAL database next to the event log, shared by the workers of a machine. Each thread has its own connection.

    A connection that met an error, or whose file is no longer the one at the path, is made anew: a database that was damaged, lost or put
    back while the server runs is read again as soon as it is there.
    """

    def __init__(self, path: Path, timeout_seconds: float, look_seconds: float = 0.25) -> None:
        self._path, self._timeout = path, timeout_seconds
        self._look_seconds = look_seconds  # how often it is looked at whether the file is still the one at the path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    @property
    def _db(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is not None and (now := monotonic()) >= self._local.look_at:
            self._local.look_at = now + self._look_seconds
            if self._local.file != self._file():
                self._forget()
                found = None
        if found is None:
            found = open_wal(self._path, self._timeout, any_thread=True)  # folded again from the event log; survives SIGKILL as it is
            try:
                # With rowids: a tree whose inner pages hold whole states is deep, and a read costs 2.5 times as much.
                found.execute("CREATE TABLE IF NOT EXISTS states (user_id TEXT PRIMARY KEY, state BLOB, recent BLOB)")
            except sqlite3.Error:
                found.close()
                raise
            self._opened.append(found)
            self._local.db, self._local.file, self._local.look_at = found, self._file(), monotonic() + self._look_seconds
        return found

    def _file(self) -> tuple[int, int]:
        """What file is at the path now; zeros when there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return 0, 0
        return found.st_dev, found.st_ino

    def _forget(self, error: Exception | None = None) -> None:
        """Close this thread's connection, unless all that is wrong is that another holds the lock."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is not None and not is_busy(error):
            self._local.db = None
            self._opened.remove(found)
            found.close()

    def get(self, user_id: str) -> bytes | None:
        try:
            row = self._db.execute("SELECT state FROM states WHERE user_id = ?", (user_id,)).fetchone()
        except (sqlite3.Error, OSError) as error:
            self._forget(error)
            raise StoreUnavailable(f"user states cannot be read ({error})") from error
        return row[0] if row else None

    def is_empty(self) -> bool:
        try:
            return self._db.execute("SELECT 1 FROM states LIMIT 1").fetchone() is None
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"user states cannot be read ({error})") from error

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        try:
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                for user_id in user_ids:
                    row = db.execute("SELECT state, recent FROM states WHERE user_id = ?", (user_id,)).fetchone()
                    pair = fold(user_id, *(row or (None, None)))
                    db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (user_id, *pair))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            self._forget(error)
            raise StoreUnavailable(f"user states cannot be written ({error})") from error

    def close(self) -> None:
        for connection in self._opened:
            connection.close()


def open_store(url: str, timeout_ms: float) -> StateStore:
    """The store a `--state` option names; `timeout_ms` bounds a read of Redis and a wait for SQLite's lock."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest:
        return SqliteStore(Path(rest), timeout_ms / 1000)
    if scheme in ("redis", "rediss", "unix"):
        from serving.redis_store import RedisStore

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
