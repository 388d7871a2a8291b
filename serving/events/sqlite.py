"""The embedded log: one append-only SQLite database shared by the workers of a machine."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from serving.events.log import LogUnavailable, event_day
from serving.messages import Event
from serving.state.sqlite import open_wal


class SqliteLog:
    """`events.sqlite` in a folder; used by the thread that made it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.sqlite"
        try:
            self._db = open_wal(self.path, 5, synchronous="FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS events "
                "(seq INTEGER PRIMARY KEY, event_id TEXT UNIQUE NOT NULL, day REAL NOT NULL, body BLOB NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            raise LogUnavailable(f"the event log {self.path} cannot be opened ({error}): check the disk and the path") from error

    def append(self, events: Sequence[Event]) -> list[bool]:
        rows = [(event.event_id, event_day(event), msgspec.json.encode(event)) for event in events]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                new = [
                    self._db.execute("INSERT OR IGNORE INTO events (event_id, day, body) VALUES (?, ?, ?)", row).rowcount == 1
                    for row in rows
                ]
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogUnavailable(f"the event log {self.path} takes no events ({error}): check the disk") from error
        return new

    def close(self) -> None:
        self._db.close()


def read_log(folder: Path, after_seq: int = 0) -> Iterator[tuple[int, Event]]:
    """The events of an embedded log in the order they were acknowledged, with their sequence numbers. Raises `LogUnavailable`."""
    db = sqlite3.connect(folder / "events.sqlite")
    try:
        for seq, body in db.execute("SELECT seq, body FROM events WHERE seq > ? ORDER BY seq", (after_seq,)):
            yield seq, msgspec.json.decode(body, type=Event)
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise LogUnavailable(f"the event log in {folder} cannot be read ({error}): put a whole one back") from error
    finally:
        db.close()
