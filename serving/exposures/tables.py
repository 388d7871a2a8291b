"""The exposure log's two files: `shown.sqlite`, a slim record an answer, and `full.sqlite`, the full records of some.

Both are WAL databases that all workers of a machine write; a row is found by the 64-bit name of its request. Each has its own bound in
bytes and in days; the oldest rows go first and their pages are used again, so a file never grows beyond its bound.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from feature_repo.schema import SECONDS_A_DAY
from serving.exposures.shown import Exposure, ShownList, exposure
from serving.state.sqlite import open_wal

SHOWN, FULL = "shown.sqlite", "full.sqlite"
_PART = 0.05  # of the rows that go at once when a file is full: rarely, so that what is freed is used meanwhile
_decode = msgspec.msgpack.Decoder(ShownList).decode


class AnsweredBy(NamedTuple):
    """What every answer of one bundle has in common."""

    bundle: str
    kinds: tuple[str, ...]


class SegmentTable:
    """One file: rows (seq, name, at, release, body). For the thread that opened it. Methods raise `sqlite3.Error` or `OSError`."""

    def __init__(self, path: Path, max_bytes: int, max_days: float) -> None:
        self._max_bytes, self._max_days = max_bytes, max_days
        self._db = open_wal(path, 2)
        try:
            self._db.execute("PRAGMA journal_size_limit=1048576")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS rows "
                "(seq INTEGER PRIMARY KEY, name INTEGER NOT NULL, at INTEGER NOT NULL, release INTEGER NOT NULL, body BLOB NOT NULL)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS by_name ON rows (name)")
            self._db.execute("CREATE TABLE IF NOT EXISTS releases (id INTEGER PRIMARY KEY, bundle TEXT NOT NULL, kinds TEXT NOT NULL)")
        except BaseException:
            self._db.close()
            raise
        self._ids: dict[AnsweredBy, int] = {}
        self._looked = 0.0
        self._zero = time.time() - time.monotonic()  # a wall clock that jumps a year ahead makes nothing a year old

    def add(self, rows: Sequence[tuple[str, AnsweredBy, bytes]]) -> None:
        """Keep rows (request id, release, body) in one transaction."""
        at = int(self._zero + time.monotonic())
        self._db.execute("BEGIN IMMEDIATE")
        try:
            named = [(name_of(request_id), at, self._release(release), body) for request_id, release, body in rows]
            self._db.executemany("INSERT INTO rows (name, at, release, body) VALUES (?, ?, ?, ?)", named)
            if time.monotonic() - self._looked >= 1.0 or self._bytes() > self._max_bytes:
                self._let_go(at)
                self._looked = time.monotonic()
            self._db.execute("COMMIT")
        except BaseException:
            self._ids.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _release(self, release: AnsweredBy) -> int:
        found = self._ids.get(release)
        if found is None:
            text = (release.bundle, json.dumps(release.kinds))
            row = self._db.execute("SELECT id FROM releases WHERE bundle = ? AND kinds = ?", text).fetchone()
            made = row[0] if row else self._db.execute("INSERT INTO releases (bundle, kinds) VALUES (?, ?)", text).lastrowid
            found = self._ids[release] = int(made or 0)
        return found

    def _bytes(self) -> int:
        """Of the pages in use."""
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
        return (pages - free) * size

    def _let_go(self, now: int) -> None:
        """Remove what is too old, and of the oldest what is too much."""
        self._db.execute(
            "DELETE FROM rows WHERE seq IN (SELECT seq FROM rows ORDER BY seq LIMIT 10000) AND at < ?",
            (now - int(self._max_days * SECONDS_A_DAY),),
        )
        while self._bytes() > self._max_bytes:
            first, last = self._db.execute("SELECT MIN(seq), MAX(seq) FROM rows").fetchone()
            if first is None or first == last:
                return
            self._db.execute("DELETE FROM rows WHERE seq <= ?", (first + int(_PART * (last - first)),))

    def close(self) -> None:
        self._db.close()


def find(folder: Path, file: str, request_id: str) -> list[tuple[int, bytes, AnsweredBy]]:
    """Rows (seq, body, release) of the request's name, newest first: one indexed look-up. Nothing where there is no such file."""
    query = (
        "SELECT seq, body, bundle, kinds FROM rows JOIN releases ON releases.id = rows.release WHERE name = ? ORDER BY seq DESC LIMIT 16"
    )
    rows = _asked(folder / file, query, name_of(request_id))
    return [(seq, body, AnsweredBy(bundle, tuple(json.loads(kinds)))) for seq, body, bundle, kinds in rows]


def read_shown(folder: Path, since_day: float = float("-inf"), after: int = 0) -> Iterator[Exposure]:
    """Every answer in a log, in the order written: from `since_day` on by the server's clock, after the `seq` where a reading before ended.

    Raises `sqlite3.Error` where the file cannot be read; a log that was never written is empty.
    """
    for seq, body, release in read_rows(folder, SHOWN, after):
        shown = _decode(body)
        if shown.day >= since_day:
            yield exposure(seq, shown, release.bundle, release.kinds)


def written_before(folder: Path, file: str, at: float) -> int:
    """The last `seq` of those written before `at`, in seconds since 1970; 0 where there is none. Raises `sqlite3.Error`."""
    return sum(last or 0 for (last,) in _asked(folder / file, "SELECT MAX(seq) FROM rows WHERE at < ?", int(at)))


def read_rows(folder: Path, file: str, after: int = 0) -> Iterator[tuple[int, bytes, AnsweredBy]]:
    """Every row (seq, body, release) of one of the two files, in the order written. Raises `sqlite3.Error`."""
    query = "SELECT seq, body, bundle, kinds FROM rows JOIN releases ON releases.id = rows.release WHERE seq > ? ORDER BY seq LIMIT 2000"
    while True:
        part = list(_asked(folder / file, query, after))
        if not part:
            return
        yield from ((seq, body, AnsweredBy(bundle, tuple(json.loads(kinds)))) for seq, body, bundle, kinds in part)
        after = part[-1][0]


def found_shown(folder: Path, request_id: str) -> Exposure | None:
    """What was shown under that id; None when it is not, or no longer, there."""
    for seq, body, release in find(folder, SHOWN, request_id):
        shown = _decode(body)
        if shown.request_id == request_id:
            return exposure(seq, shown, release.bundle, release.kinds)
    return None


def _asked(path: Path, query: str, *values: int) -> list[Any]:
    """Rows of one question, by a connection of its own: asked from any thread, and rarely."""
    if not path.is_file():
        return []
    with closing(sqlite3.connect(path, timeout=2)) as db:
        try:
            return db.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # made a moment ago, and nothing is in it yet
                return []
            raise


def name_of(request_id: str) -> int:
    """The 64-bit name under which a request is filed, signed as SQLite's integers are."""
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "little", signed=True)
