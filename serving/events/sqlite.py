"""The embedded log: one append-only SQLite database shared by the workers of a machine."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from serving.events.log import LogUnavailable, Outcome, Part, Position, event_day, state_event
from serving.messages import Event
from serving.state.sqlite import open_wal

_decode = msgspec.json.Decoder(Event).decode


class _File(NamedTuple):
    """What lies at a path. Of a log that is open SQLite makes neither file shorter."""

    place: tuple[int, int]  # device and inode
    size: int


class SqliteLog:
    """`events.sqlite` in a folder; used by the thread that made it.

    Before an acknowledgement, and before it is read, it is looked at whether the files are still those that were opened: what is written
    into a removed file, or after what was cut out of one, is lost with the process. Then nothing is taken until the same log is back at its
    place, or the server is started again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.sqlite"
        self._open()

    def _open(self) -> None:
        try:
            self._db = open_wal(self.path, 5, synchronous="FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS events "
                "(seq INTEGER PRIMARY KEY, event_id TEXT UNIQUE NOT NULL, day REAL NOT NULL, body BLOB NOT NULL)"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS log (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL)")
            self._db.execute("INSERT OR IGNORE INTO log VALUES (1, lower(hex(randomblob(16))))")
            self.id = str(self._db.execute("SELECT id FROM log").fetchone()[0])
            self._files = self._found()
        except (sqlite3.Error, OSError) as error:
            raise LogUnavailable(f"the event log {self.path} cannot be opened ({error}): check the disk and the path") from error

    def _found(self) -> tuple[_File | None, _File | None]:
        """Which files are at the path now: the database and its write-ahead log."""
        return _file(self.path), _file(self.path.with_name(f"{self.path.name}-wal"))

    def _check(self) -> None:
        """Raises `LogUnavailable` when the files were removed or replaced; takes up the same log put back."""
        now = self._found()
        pairs = list(zip(now, self._files, strict=True))
        if all(_goes_on(one, before) for one, before in pairs):
            self._files = now
            return
        changed = [(one and one.place) != (before and before.place) for one, before in pairs]
        if now[0] is not None and all(changed) and _id_of(self.path) == self.id:  # not while the old write-ahead log lies beside it
            self._db.close()
            self._open()
            return
        what = "was removed" if None in now else "was replaced" if any(changed) else "was cut short"
        raise LogUnavailable(f"the event log {self.path} {what} under this server: put it back, or start the server again")

    def append(self, events: Sequence[Event]) -> list[Outcome]:
        self._check()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                outcomes = [self._taken(event) for event in events]
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogUnavailable(f"the event log {self.path} takes no events ({error}): check the disk") from error
        self._check()
        return outcomes

    def _taken(self, event: Event) -> Outcome:
        row = (event.event_id, event_day(event), msgspec.json.encode(event))
        if self._db.execute("INSERT OR IGNORE INTO events (event_id, day, body) VALUES (?, ?, ?)", row).rowcount == 1:
            return "new"
        (body,) = self._db.execute("SELECT body FROM events WHERE event_id = ?", row[:1]).fetchone()
        return "duplicate" if body == row[2] or _decode(body) == event else "conflict"

    def read(self, after: Position, limit: int, floor_day: float) -> Part:
        self._check()
        try:
            begin = self._seq(after)
            last = self._last()
            end = min(begin + limit, last)
            rows = self._db.execute(
                "SELECT body FROM events WHERE seq > ? AND seq <= ? AND day >= ? ORDER BY seq", (begin, end, floor_day)
            ).fetchall()
            events = [state_event(_decode(body)) for (body,) in rows]
            return Part(events, Position(self.id, {"": end}, self._mark(end)), last - end)
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise LogUnavailable(f"the event log {self.path} cannot be read ({error}): put a whole one back") from error

    def behind(self, after: Position) -> int:
        self._check()
        try:
            return self._last() - self._seq(after)
        except sqlite3.Error as error:
            raise LogUnavailable(f"the event log {self.path} cannot be read ({error}): put a whole one back") from error

    def _seq(self, after: Position) -> int:
        """Where to go on; 0 where the position is another log's, or this one is an older copy put back: known events change nothing."""
        seq = after.at.get("", 0) if after.log == self.id else 0
        return seq if seq and self._mark(seq) == after.mark else 0

    def _mark(self, seq: int) -> str:
        row = self._db.execute("SELECT event_id FROM events WHERE seq = ?", (seq,)).fetchone()
        return str(row[0]) if row else ""

    def _last(self) -> int:
        return int(self._db.execute("SELECT MAX(seq) FROM events").fetchone()[0] or 0)

    def close(self) -> None:
        self._db.close()


def read_log(folder: Path, after_seq: int = 0) -> Iterator[tuple[int, Event]]:
    """The events of an embedded log in the order they were acknowledged, with their sequence numbers. Raises `LogUnavailable`."""
    db = sqlite3.connect(folder / "events.sqlite")
    try:
        for seq, body in db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (after_seq,)):
            yield seq, _decode(body)
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise LogUnavailable(f"the event log in {folder} cannot be read ({error}): put a whole one back") from error
    finally:
        db.close()


def _file(path: Path) -> _File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _File((found.st_dev, found.st_ino), found.st_size)


def _goes_on(now: _File | None, before: _File | None) -> bool:
    """Whether it is the file that it was, and nothing was cut out of it."""
    return now == before or (now is not None and before is not None and now.place == before.place and now.size >= before.size)


def _id_of(path: Path) -> str:
    """Of the log in a file; empty where it is none."""
    try:
        db = sqlite3.connect(f"file:{path}?immutable=1", uri=True)  # alone, whatever lies beside it
        try:
            return str(db.execute("SELECT id FROM log").fetchone()[0])
        finally:
            db.close()
    except (sqlite3.Error, TypeError):
        return ""
