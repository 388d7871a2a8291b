"""SQLite files that several workers open at once."""

import sqlite3
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random


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
