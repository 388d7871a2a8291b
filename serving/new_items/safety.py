"""Safety messages: an item recalled, blocked or hidden by name is in no list, of any rung and worker, until it is taken back by name.

They are few, must never be refused for want of room, and outlive releases, restarts and a Redis that comes back empty: what was said last
of an item and an action holds (`Said.at`), so copies can be merged in any order. Every machine keeps them in a file of its own,
`safety.sqlite`; where states are in Redis, they are there too, and each side is given what the other has.
"""

import logging
import math
import mmap
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from serving.state.sqlite import open_wal
from serving.state.store import StoreUnavailable

ACTIONS = ("recall", "block", "hide", "delete")
_log = logging.getLogger("serving.new_items")


class Said(NamedTuple):
    """One message: the action holds for the item, or no longer does."""

    item_id: str
    action: str
    on: bool
    at: float  # days since 1970, by the server's clock


Book = dict[tuple[str, str], Said]  # by item and action


def merged(*parts: Iterable[Said]) -> Book:
    """What was said last; of one moment, that the action holds."""
    book: Book = {}
    for part in parts:
        for said in part:
            had = book.get((said.item_id, said.action))
            if had is None or (said.at, said.on) > (had.at, had.on):
                book[said.item_id, said.action] = said
    return book


class Safety:
    """The messages of a machine, and of all machines where there is a Redis. Methods raise `StoreUnavailable`. Safe between threads.

    `name`: of the file, its bell and the key in Redis; other messages than those of items' safety are kept beside them under another.
    """

    def __init__(self, folder: Path, redis_url: str = "", name: str = "safety") -> None:
        self._path, self._bell = folder / f"{name}.sqlite", _Bell(folder / f"{name}.bell")
        self._shared = _Shared(redis_url, f"shortlist:{name}") if redis_url else None
        self._rung = -1

    def say(self, messages: Iterable[Said]) -> None:
        """Keep messages: on disk when this returns, and last of what was said of their items, whatever another machine's clock said."""
        known = merged(self._kept())
        said: list[Said] = []
        for one in messages:
            had = known.get((one.item_id, one.action))
            said.append(one if had is None or one.at > had.at else one._replace(at=math.nextafter(had.at, math.inf)))
            known[one.item_id, one.action] = said[-1]
        self._keep(said)

    def is_news(self) -> bool:
        """Whether another worker of this machine said something since `book` was read: a look at a word of shared memory."""
        return self._bell.count() != self._rung

    def book(self) -> Book:
        """All that this machine knows to hold, or to have held."""
        rung = self._bell.count()
        book = merged(self._kept())
        self._rung = rung
        return book

    def share(self) -> None:
        """Give this machine what the others have in Redis, and them what it has; a Redis that is down is left alone until the next time."""
        if self._shared is None:
            return
        own = set(self._kept())
        with suppress(StoreUnavailable):
            shared = set(self._shared.all())
            book = merged(own, shared)
            self._keep([said for said in book.values() if said not in own])
            self._shared.say([said for said in book.values() if said not in shared])

    def _keep(self, said: list[Said]) -> None:
        if not said:
            return
        try:
            with closing(self._open()) as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    "INSERT INTO said VALUES (?, ?, ?, ?) ON CONFLICT (item_id, action) DO UPDATE SET on_ = excluded.on_, at = excluded.at "
                    "WHERE (excluded.at, excluded.on_) > (at, on_)",
                    [(one.item_id, one.action, int(one.on), one.at) for one in said],
                )
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"safety messages cannot be kept in {self._path} ({error}): check the disk and the path") from error
        self._bell.ring()

    def _kept(self) -> list[Said]:
        try:
            with closing(self._open()) as db:
                rows = db.execute("SELECT item_id, action, on_, at FROM said").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"safety messages in {self._path} cannot be read ({error}): check the disk and the path") from error
        return [Said(item_id, action, bool(on), at) for item_id, action, on, at in rows]

    def _open(self) -> sqlite3.Connection:
        db = open_wal(self._path, 2, synchronous="FULL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS said "
            "(item_id TEXT, action TEXT, on_ INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (item_id, action))"
        )
        return db


class _Shared:
    """The messages in Redis: one hash, of which each entry is what was said last as far as this side knows."""

    def __init__(self, url: str, key: str) -> None:
        import redis

        self._key, self._errors = key, redis.RedisError
        self._client: Any = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)

    def say(self, messages: list[Said]) -> None:
        if not messages:
            return
        try:
            self._client.hset(self._key, mapping={f"{one.action}:{one.item_id}": f"{int(one.on)}:{one.at!r}" for one in messages})
        except self._errors as error:
            raise StoreUnavailable(f"safety messages cannot be written to Redis ({error})") from error

    def all(self) -> list[Said]:
        try:
            entries = self._client.hgetall(self._key)
        except self._errors as error:
            raise StoreUnavailable(f"safety messages cannot be read from Redis ({error})") from error
        return [said for said in (_entry(name, value) for name, value in entries.items()) if said is not None]


def _entry(name: bytes, value: bytes) -> Said | None:
    """A message as the hash keeps it; None of what somebody else wrote there, which stops no other."""
    try:
        action, item_id = name.decode().split(":", 1)
        on, at = value.decode().split(":", 1)
        if action in ACTIONS and on in ("0", "1") and math.isfinite(float(at)):
            return Said(item_id, action, on == "1", float(at))
    except ValueError:
        pass
    _log.warning("left out: %r in Redis is no safety message: %r", name, value)
    return None


class _Bell:
    """A number in a file that all workers of a machine have mapped: one that is rung is heard by the next request of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None

    def count(self) -> int:
        return int.from_bytes(self._mapped()[:8], "little")

    def ring(self) -> None:
        import fcntl

        word = self._mapped()
        with self._path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            word[:8] = (int.from_bytes(word[:8], "little") + 1).to_bytes(8, "little")

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    os.posix_fallocate(file, 0, 8)  # a write into a map that a full disk cannot hold ends the process
                    self._map = mmap.mmap(file, 8)
                finally:
                    os.close(file)
            except OSError:  # no place to write: heard by looking every second
                self._map = mmap.mmap(-1, 8)
        return self._map
