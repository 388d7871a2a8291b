"""SQLite files that several workers open at once, and the states of users in one."""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from serving.state.store import WHOLE, Change, Found, StoreUnavailable


def open_wal(path: Path, timeout_seconds: float, *, synchronous: str = "NORMAL", any_thread: bool = False) -> sqlite3.Connection:
    """A connection to a database in WAL mode, which is made where it is missing, its folder too.

    Raises `sqlite3.Error` or `OSError`. While one connection turns a new file to WAL, SQLite answers the others "database is locked"
    without waiting its `timeout`; so it is asked again until that time is over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None, check_same_thread=not any_thread)
    try:
        for attempt in Retrying(
            retry=retry_if_exception(is_busy), stop=stop_after_delay(timeout_seconds), wait=wait_random(0.001, 0.01), reraise=True
        ):
            with attempt:
                db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
    except BaseException:
        db.close()
        raise
    return db


def is_busy(error: BaseException | None) -> bool:
    """Is all that is wrong that another holds the lock?"""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SqliteStore:
    """A WAL database next to the event log, shared by the workers of a machine. Each thread has its own connection.

    A connection that met an error, or whose file is no longer the one at the path, is made anew: a database that was damaged, lost or put
    back while the server runs is read again as soon as it is there. `log`: the name of the log that is folded here; empty: none is, and
    the store counts as whole.
    """

    def __init__(self, path: Path, timeout_seconds: float, look_seconds: float = 0.25, log: str = "") -> None:
        self._path, self._timeout, self._log = path, timeout_seconds, log
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
                # Version 3 of what is kept: a database of an earlier one is folded anew from the log, beside what it held.
                # With rowids: a tree whose inner pages hold whole states is deep, and a read costs 2.5 times as much.
                found.execute("CREATE TABLE IF NOT EXISTS states_3 (user_id TEXT PRIMARY KEY, state BLOB, recent BLOB)")
                found.execute("CREATE TABLE IF NOT EXISTS positions_3 (log TEXT PRIMARY KEY, position BLOB NOT NULL)")
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

    def get(self, user_id: str) -> Found:
        query = "SELECT (SELECT state FROM states_3 WHERE user_id = ?), (SELECT substr(position, 1, 1) FROM positions_3 WHERE log = ?)"
        try:
            value, position = self._db.execute(query, (user_id, self._log)).fetchone()
        except (sqlite3.Error, OSError) as error:
            self._forget(error)
            raise StoreUnavailable(f"user states cannot be read ({error})") from error
        return Found(value, not self._log or position == WHOLE)

    def position(self) -> bytes | None:
        try:
            return _position(self._db, self._log)
        except (sqlite3.Error, OSError) as error:
            self._forget(error)
            raise StoreUnavailable(f"user states cannot be read ({error})") from error

    def commit(self, expected: bytes | None, reached: bytes, user_ids: Sequence[str], fold: Change) -> bool:
        def move(db: sqlite3.Connection) -> bool:
            if _position(db, self._log) != expected:
                return False
            db.execute("INSERT OR REPLACE INTO positions_3 VALUES (?, ?)", (self._log, reached))
            return True

        return self._changed(user_ids, fold, move)

    def change(self, user_ids: Sequence[str], fold: Change) -> None:
        self._changed(user_ids, fold, lambda _: True)

    def _changed(self, user_ids: Sequence[str], fold: Change, first: Callable[[sqlite3.Connection], bool]) -> bool:
        """In one transaction, `first` and then the changes, unless it says no."""
        try:
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                going = first(db)
                for user_id in user_ids if going else ():
                    row = db.execute("SELECT state, recent FROM states_3 WHERE user_id = ?", (user_id,)).fetchone()
                    pair = fold(user_id, *(row or (None, None)))
                    db.execute("INSERT OR REPLACE INTO states_3 VALUES (?, ?, ?)", (user_id, *pair))
                db.execute("COMMIT")
                return going
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


def _position(db: sqlite3.Connection, log: str) -> bytes | None:
    row = db.execute("SELECT position FROM positions_3 WHERE log = ?", (log,)).fetchone()
    return row[0] if row else None
