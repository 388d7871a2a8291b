"""The exposure log: of every answer what was shown, of some how it came about; enough to learn from, to explain and to give again.

Writing is not on a request's way: `keep` puts the record, made while all of it is in the processor's cache, into a bounded queue; a
thread writes what has gathered, some ten times a second (`serving/exposures/tables.py`). When the queue is full or the disk refuses, the
answer is counted in `dropped` or `failed` and forgotten; it is never delayed, and nothing here makes it fail.
The full record is kept of whatever was degraded, of one answer in `1 / sample`, and of one a second besides, so that a quiet server
can explain everything. Users whose consent is minimal are logged without their id.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from serving.exposures.record import Record, record_of
from serving.exposures.shown import Exposure, shown_of
from serving.exposures.tables import FULL, SHOWN, AnsweredBy, SegmentTable, find, found_shown, name_of, read_rows
from serving.exposures.topic import ExposureTopic
from serving.query import Answer
from serving.system import System

_GATHER_SECONDS = 0.1  # records wait this long for others while they come; the first after a pause does not
_MANY = 64  # waiting records that wake the writer at once
_PAUSE_SECONDS = 1.0  # after the disk refused
_LAST_SECONDS = 1.0  # at the end, for what the brokers have not taken yet
_SPARE_A_SECOND, _SPARE = 1.0, 60.0  # full records beyond the sample: how many a second, and saved up in a pause
_NAMES = 1 << 64

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Keeping(NamedTuple):
    """How much is kept, and how long."""

    sample: float = 0.01  # share of answers whose full record is kept
    days: float = 90.0  # of either kind
    shown_bytes: int = 4 << 30  # of the slim records: some 16 million answers
    full_bytes: int = 512 << 20


class _Waiting(NamedTuple):
    request_id: str
    release: AnsweredBy
    shown: bytes
    full: bytes | None


def read_records(folder: Path) -> Iterator[Record]:
    """Every full record of a log, in the order written. Raises `sqlite3.Error` where the file cannot be read."""
    return (_decode(body) for _, body, _ in read_rows(folder, FULL))


class ExposureLog:
    """The log of one folder."""

    def __init__(
        self, folder: Path, keeping: Keeping | None = None, *, waiting: int = 1024, clock: Callable[[], float] = time.monotonic,
        topic: ExposureTopic | None = None,
    ) -> None:  # fmt: skip
        self.folder, self._keeping, self._clock, self._topic = folder, keeping or Keeping(), clock, topic
        self.dropped = self.failed = self.written = 0  # answers: queue full, disk refused, in the log
        self._room = waiting
        self._spare, self._spared_at = _SPARE, clock()
        self._queue: deque[_Waiting | threading.Event | None] = deque()
        self._wake = threading.Event()
        self._asleep = True  # the writer waits until it is woken, not for a moment
        self._tables: tuple[SegmentTable, SegmentTable] | None = None
        self._refused_at = float("-inf")
        self._thread = threading.Thread(target=self._write, name="exposures", daemon=True)
        self._thread.start()

    def keep(self, answer: Answer, system: System) -> None:
        """Take an answer to be written. Never waits, never raises."""
        waiting = len(self._queue)
        if waiting >= self._room:
            self.dropped += 1
            return
        try:
            shown = _encode(shown_of(answer, system))
            full = _encode(record_of(answer)) if self._is_sampled(answer) else None
            self._queue.append(_Waiting(answer.request_id, AnsweredBy(answer.bundle, system.kinds), shown, full))
        except Exception:  # noqa: BLE001 -- whatever is wrong with a record, its answer goes out
            self.failed += 1
            return
        if self._asleep or waiting == _MANY:
            self._wake.set()

    def _is_sampled(self, answer: Answer) -> bool:
        """Whether the full record is kept: by the request's name, so that all workers and a later look agree, or as one to spare."""
        if answer.degraded is not None or name_of(answer.request_id) % _NAMES < self._keeping.sample * _NAMES:
            return True
        now = self._clock()
        self._spare = min(self._spare + (now - self._spared_at) * _SPARE_A_SECOND, _SPARE)
        self._spared_at = now
        if self._spare < 1:
            return False
        self._spare -= 1
        return True

    def find(self, request_id: str) -> Record | None:
        """The full record of a request, from any process; None when none was kept, or no longer is."""
        self.flush()
        try:
            for _, body, _ in find(self.folder, FULL, request_id):
                record = _decode(body)
                if record.request.request_id == request_id:
                    return record
        except (sqlite3.Error, OSError, msgspec.DecodeError):
            return None  # a damaged file explains nothing; `failed` tells of it when it is next written
        return None

    def shown(self, request_id: str) -> Exposure | None:
        """What was shown; None when it is not, or no longer, there."""
        self.flush()
        try:
            return found_shown(self.folder, request_id)
        except (sqlite3.Error, OSError, msgspec.DecodeError):
            return None

    def counters(self) -> dict[str, int]:
        """Answers by what became of their records; they only grow."""
        sent = {"sent": self._topic.sent, "unsent": self._topic.unsent} if self._topic is not None else {}
        return {"written": self.written, "dropped": self.dropped, "failed": self.failed, **sent}

    def flush(self, seconds: float = 1.0) -> bool:
        """Wait until what was taken before is written; False when that takes longer."""
        done = threading.Event()
        self._queue.append(done)
        self._wake.set()
        return done.wait(seconds)

    def close(self) -> None:
        """Write what is waiting and stop. A writer that hangs ends with the process."""
        self._queue.append(None)
        self._wake.set()
        self._thread.join(2)

    def _write(self) -> None:
        while True:
            self._wake.wait(None if self._asleep else _GATHER_SECONDS)
            self._wake.clear()
            batch = [self._queue.popleft() for _ in range(len(self._queue))]
            self._append([entry for entry in batch if isinstance(entry, _Waiting)])
            for entry in batch:
                if isinstance(entry, threading.Event):
                    entry.set()
            if None in batch:
                self._close_tables()
                if self._topic is not None:
                    self._topic.close(_LAST_SECONDS)
                return
            self._asleep = not batch
            if self._asleep and self._queue:  # came before we said that we sleep
                self._wake.set()

    def _append(self, records: list[_Waiting]) -> None:
        """Write records, or count them as failed."""
        if not records:
            return
        if self._topic is not None:
            self._topic.add([(one.request_id, one.release, one.shown) for one in records])
        if time.monotonic() - self._refused_at < _PAUSE_SECONDS:
            self.failed += len(records)
            return
        try:
            shown, full = self._tables = self._tables or self._open()
            shown.add([(one.request_id, one.release, one.shown) for one in records])
            some = [(one.request_id, one.release, one.full) for one in records if one.full is not None]
            if some:
                full.add(some)
        except (sqlite3.Error, OSError):
            self.failed += len(records)
            self._refused_at = time.monotonic()
            self._close_tables()
            return
        self.written += len(records)

    def _open(self) -> tuple[SegmentTable, SegmentTable]:
        keeping = self._keeping
        shown = SegmentTable(self.folder / SHOWN, keeping.shown_bytes, keeping.days)
        try:
            return shown, SegmentTable(self.folder / FULL, keeping.full_bytes, keeping.days)
        except BaseException:
            shown.close()
            raise

    def _close_tables(self) -> None:
        tables, self._tables = self._tables, None
        for table in tables or ():
            try:
                table.close()
            except sqlite3.Error:  # what could not be written was counted already
                continue
