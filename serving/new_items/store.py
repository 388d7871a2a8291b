"""Items posted since the release, kept where all workers see them: SQLite beside the states, or Redis. A version says what changed."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import time_ns
from typing import Any, NamedTuple, Protocol

import msgspec

from feature_repo.schema import SECONDS_A_DAY
from serving.messages import ItemPatch, NewItem
from serving.state.sqlite import open_wal
from serving.state.store import StoreUnavailable

_PREFIX = "shortlist:items"
Written = tuple[tuple[int, int, int], ...]  # inode, size and time of the database and its log
_SETTLED_NS = 1_000_000_000
_log = logging.getLogger("serving.new_items")


class Kept(NamedTuple):
    """A posted item, all that was said of it together, and the day of the latest, by the server's clock."""

    item: NewItem
    day: float


def named(item: ItemPatch | NewItem) -> dict[str, Any]:
    """The fields that a message names; what it does not name stays as it was."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(item))
    return fields


def _merged(had: bytes | None, fields: dict[str, Any], day: float) -> bytes:
    """A kept item after one more message. One that is new is in the catalogue since now, unless it says otherwise."""
    old = _decoded(had) if had is not None else {}
    since = {"created_at": datetime.fromtimestamp(day * SECONDS_A_DAY, UTC).isoformat()}
    return msgspec.json.encode({"item": since | old.get("item", old) | fields, "day": day})


def _decoded(body: bytes) -> dict[str, Any]:
    """What is kept of an item; nothing of what cannot be read."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _read(bodies: Iterable[bytes]) -> list[Kept]:
    """Items as they are kept; without what cannot be read, which stops no other and is whole again once it is posted again."""
    kept = []
    for body in bodies:
        found = _decoded(body)
        try:
            kept.append(Kept(msgspec.convert(found.get("item", found), NewItem, strict=True), float(found.get("day", "inf"))))
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            _log.warning("left out: a posted item cannot be read (%s): %r", error, body[:100])
    return kept


class ItemStore(Protocol):
    """Posted items in the order they first came. Every method raises `StoreUnavailable`. Safe between threads."""

    def post(self, items: Sequence[dict[str, Any]], day: float) -> tuple[int, int]:
        """Keep what messages name of items; how many were new, and the version now."""

    def version(self) -> int: ...

    def all(self) -> list[Kept]: ...

    def drop(self, item_ids: Sequence[str]) -> None:
        """Forget items that a release holds."""


class SqliteItems:
    """One table; a connection a call, as calls are rare: `version`, asked for every second, opens none while nothing was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[Written, int] | None = None  # a version, and what was written when it was read

    def post(self, items: Sequence[dict[str, Any]], day: float) -> tuple[int, int]:
        def work(db: sqlite3.Connection) -> tuple[int, int]:
            before = _count(db)
            for fields in items:
                name = fields["item_id"]
                row = db.execute("SELECT body FROM items WHERE item_id = ?", (name,)).fetchone()
                db.execute(
                    "INSERT INTO items (item_id, body) VALUES (?, ?) ON CONFLICT (item_id) DO UPDATE SET body = excluded.body",
                    (name, _merged(row[0] if row else None, fields, day)),
                )
            db.execute("UPDATE version SET number = number + 1")
            return _count(db) - before, int(db.execute("SELECT number FROM version").fetchone()[0])

        return self._with(work, write=True)

    def version(self) -> int:
        written = tuple(_written(self._path.with_name(self._path.name + end)) for end in ("", "-wal"))
        if self._known is not None and self._known[0] == written:
            return self._known[1]
        number = int(self._with(lambda db: db.execute("SELECT number FROM version").fetchone()[0]))
        settled = all(time_ns() - at > _SETTLED_NS for _, _, at in written)  # what is written within a tick of the clock has one time
        self._known = (written, number) if settled else None
        return number

    def all(self) -> list[Kept]:
        rows = self._with(lambda db: db.execute("SELECT body FROM items ORDER BY seq").fetchall())
        return _read(body for (body,) in rows)

    def drop(self, item_ids: Sequence[str]) -> None:
        self._with(lambda db: db.executemany("DELETE FROM items WHERE item_id = ?", [(name,) for name in item_ids]), write=True)

    def _with(self, work: Any, write: bool = False) -> Any:
        try:
            db = open_wal(self._path, 2)
            try:
                db.execute("CREATE TABLE IF NOT EXISTS items (seq INTEGER PRIMARY KEY, item_id TEXT UNIQUE NOT NULL, body BLOB NOT NULL)")
                db.execute("CREATE TABLE IF NOT EXISTS version (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL)")
                db.execute("INSERT OR IGNORE INTO version VALUES (1, 0)")
                if not write:
                    return work(db)
                db.execute("BEGIN IMMEDIATE")
                try:
                    result = work(db)
                    db.execute("COMMIT")
                    return result
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
            finally:
                db.close()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"posted items at {self._path} cannot be reached ({error}): check the disk and the path") from error


class RedisItems:
    """A hash of bodies, a sorted set of arrival, a version."""

    def __init__(self, url: str) -> None:
        import redis

        self._errors, self._watched = redis.RedisError, redis.WatchError
        self._client: Any = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)

    def post(self, items: Sequence[dict[str, Any]], day: float) -> tuple[int, int]:
        names = [fields["item_id"] for fields in items]
        try:
            first = self._client.incrby(f"{_PREFIX}:seq", len(items)) - len(items)
            while True:
                with self._client.pipeline(transaction=True) as pipe:
                    pipe.watch(f"{_PREFIX}:bodies")
                    had = pipe.hmget(f"{_PREFIX}:bodies", names)
                    bodies = {name: _merged(body, fields, day) for name, body, fields in zip(names, had, items, strict=True)}
                    pipe.multi()
                    pipe.zadd(f"{_PREFIX}:order", {name: first + at for at, name in enumerate(names)}, nx=True)
                    pipe.hset(f"{_PREFIX}:bodies", mapping=bodies)
                    pipe.incr(f"{_PREFIX}:version")
                    try:
                        new, _, version = pipe.execute()
                    except self._watched:
                        continue
                    return int(new), int(version)
        except self._errors as error:
            raise StoreUnavailable(f"posted items cannot be written to Redis ({error})") from error

    def drop(self, item_ids: Sequence[str]) -> None:
        try:
            pipe = self._client.pipeline(transaction=True)
            pipe.zrem(f"{_PREFIX}:order", *item_ids)
            pipe.hdel(f"{_PREFIX}:bodies", *item_ids)
            pipe.execute()
        except self._errors as error:
            raise StoreUnavailable(f"posted items cannot be written to Redis ({error})") from error

    def version(self) -> int:
        try:
            return int(self._client.get(f"{_PREFIX}:version") or 0)
        except self._errors as error:
            raise StoreUnavailable(f"posted items cannot be read from Redis ({error})") from error

    def all(self) -> list[Kept]:
        try:
            names = self._client.zrange(f"{_PREFIX}:order", 0, -1)
            bodies = self._client.hmget(f"{_PREFIX}:bodies", names) if names else []
        except self._errors as error:
            raise StoreUnavailable(f"posted items cannot be read from Redis ({error})") from error
        return _read(body for body in bodies if body is not None)


def open_items(state_url: str) -> ItemStore:
    """Beside the states that `--state` names."""
    if state_url.startswith("sqlite:"):
        return SqliteItems(Path(state_url.removeprefix("sqlite:")).with_name("items.sqlite"))
    return RedisItems(state_url)


def _written(path: Path) -> tuple[int, int, int]:
    """What can be seen of a file without opening it: inode, size, time of the last write; zeros when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT COUNT(*) FROM items").fetchone()[0])
