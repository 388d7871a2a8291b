"""The exposure log: what was shown to whom, from what, and how it came about; enough to explain any answer and to give it again.

Append-only segments in one folder, shared by all workers: each process writes its own files, any process reads all of them. A record is
length, checksum, name and a MessagePack body; a record cut short by a crash ends its segment and harms nothing before it.
Writing is not on a request's way: `keep` puts the record, made while all of it is in the processor's cache, into a bounded queue; a
thread names, sums and writes what has gathered, some ten times a second. When the queue is full or the disk refuses, the answer is counted
in `dropped` or `failed` and forgotten; it is never delayed.
Users whose consent is minimal are logged without their id.
"""

import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from serving.exposures.record import Record, record_of
from serving.query import Answer

_HEADER = struct.Struct("<IIQ")  # body length, CRC-32 of the body, name of the request
_GATHER_SECONDS = 0.1  # records wait this long for others while they come; the first after a pause does not
_MANY = 64  # waiting records that wake the writer at once
_PAUSE_SECONDS = 1.0  # after the disk refused


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class ExposureLog:
    """The log of one folder. `segment_bytes`: size of one file; `max_bytes`: of all, the oldest files go first."""

    def __init__(self, folder: Path, *, segment_bytes: int = 16 << 20, max_bytes: int = 512 << 20, waiting: int = 256) -> None:
        self.folder = folder
        self.dropped = self.failed = self.written = 0  # answers: queue full, disk refused, in the log
        self._segment_bytes, self._max_bytes = segment_bytes, max_bytes
        self._room = waiting
        self._queue: deque[tuple[str, bytes] | threading.Event | None] = deque()
        self._wake = threading.Event()
        self._asleep = True  # the writer waits until it is woken, not for a moment
        self._file: int | None = None
        self._size = 0
        self._number = 0
        self._refused_at = -_PAUSE_SECONDS
        self._thread = threading.Thread(target=self._write, name="exposures", daemon=True)
        self._thread.start()

    def keep(self, answer: Answer) -> None:
        """Take an answer to be written. Never waits, never fails."""
        waiting = len(self._queue)
        if waiting >= self._room:
            self.dropped += 1
            return
        try:
            self._queue.append((answer.request_id, _encode(record_of(answer))))
        except (ValueError, TypeError):
            self.failed += 1
            return
        if self._asleep or waiting == _MANY:
            self._wake.set()

    def find(self, request_id: str) -> Record | None:
        """The record of a request, from any process's segments; None when it is not, or no longer, there."""
        self.flush()
        name = _name(request_id)
        for path in sorted(self.folder.glob("*.exposures"), key=_age, reverse=True):
            for body in _bodies(path, name):
                record = _decode(body)
                if record.request.request_id == request_id:
                    return record
        return None

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
            self._append([entry for entry in batch if isinstance(entry, tuple)])
            for entry in batch:
                if isinstance(entry, threading.Event):
                    entry.set()
            if None in batch:
                self._end_segment()
                return
            self._asleep = not batch
            if self._asleep and self._queue:  # came before we said that we sleep
                self._wake.set()

    def _append(self, records: list[tuple[str, bytes]]) -> None:
        """Write records in one call, or count them as failed."""
        if not records:
            return
        if time.monotonic() - self._refused_at < _PAUSE_SECONDS:
            self.failed += len(records)
            return
        data = b"".join([part for name, body in records for part in (_HEADER.pack(len(body), zlib.crc32(body), _name(name)), body)])
        size = len(data)
        try:
            file = self._segment()
            while data:
                data = data[os.write(file, data) :]
        except OSError:
            self.failed += len(records)
            self._refused_at = time.monotonic()
            self._end_segment()
            return
        self._size += size
        self.written += len(records)

    def _segment(self) -> int:
        """The open segment; a new one when there is none or it is full."""
        if self._file is not None and self._size >= self._segment_bytes:
            self._end_segment()
        while self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._number += 1
            path = self.folder / f"{os.getpid():08d}-{self._number:06d}.exposures"
            try:
                self._file, self._size = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600), 0
            except FileExistsError:
                continue  # an earlier process of that number wrote it
            self._let_go()
        return self._file

    def _end_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _let_go(self) -> None:
        """Remove the oldest segments beyond `max_bytes`, leaving room for the one just begun."""
        paths = sorted(self.folder.glob("*.exposures"), key=_age)
        total = sum(_size(path) for path in paths) + self._segment_bytes
        for path in paths[:-1]:
            if total <= self._max_bytes:
                return
            total -= _size(path)
            path.unlink(missing_ok=True)


def _bodies(path: Path, name: int) -> Iterator[bytes]:
    """Whole records of that name in a segment."""
    try:
        with path.open("rb") as file:
            while len(head := file.read(_HEADER.size)) == _HEADER.size:
                length, checksum, found = _HEADER.unpack(head)
                if found != name:
                    file.seek(length, os.SEEK_CUR)
                    continue
                body = file.read(length)
                if len(body) == length and zlib.crc32(body) == checksum:
                    yield body
    except FileNotFoundError:
        return  # let go by another process meanwhile


def _name(request_id: str) -> int:
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "little")


def _age(path: Path) -> tuple[int, str]:
    """Sort key, oldest first; a file removed meanwhile counts as oldest."""
    try:
        return path.stat().st_mtime_ns, path.name
    except FileNotFoundError:
        return 0, path.name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
