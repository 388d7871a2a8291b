"""The exposure log: what was shown to whom, from what, and how it came about; enough to explain any answer and to give it again.

Append-only segments in one folder, shared by all workers: each process writes its own files, any process reads all of them. A record is
length, checksum, name and a MessagePack body; a record cut short by a crash ends its segment and harms nothing before it.
Writing is not on a request's way: `keep` puts the answer into a bounded queue, a thread writes it. When the queue is full or the
disk refuses, the answer is counted in `dropped` or `failed` and forgotten; it is never delayed.
Users whose consent is minimal are logged without their id.
"""

import os
import queue
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import msgspec

from serving.query import Answer
from serving.records import Record, record_of

_HEADER = struct.Struct("<IIQ")  # body length, CRC-32 of the body, name of the request
_BATCH = 64  # records written at once
_PAUSE_SECONDS = 1.0  # after the disk refused


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class ExposureLog:
    """The log of one folder. `segment_bytes`: size of one file; `max_bytes`: of all, the oldest files go first."""

    def __init__(self, folder: Path, *, segment_bytes: int = 16 << 20, max_bytes: int = 512 << 20, waiting: int = 256) -> None:
        self.folder = folder
        self.dropped = self.failed = self.written = 0  # answers: queue full, disk refused, in the log
        self._segment_bytes, self._max_bytes = segment_bytes, max_bytes
        self._queue: queue.Queue[Answer | threading.Event | None] = queue.Queue(waiting)
        self._file: int | None = None
        self._size = 0
        self._number = 0
        self._refused_at = -_PAUSE_SECONDS
        self._thread = threading.Thread(target=self._write, name="exposures", daemon=True)
        self._thread.start()

    def keep(self, answer: Answer) -> None:
        """Take an answer to be written. Never waits, never fails."""
        trace = answer.trace
        if trace is not None and trace.scores is not None:  # the features are made again from the state
            answer = replace(answer, trace=replace(trace, scores=replace(trace.scores, cross=None)))
        try:
            self._queue.put_nowait(answer)
        except queue.Full:
            self.dropped += 1

    def find(self, request_id: str) -> Record | None:
        """The record of a request, from any process's segments; None when it is not, or no longer, there."""
        self.flush()
        name = _name(request_id)
        for path in sorted(self.folder.glob("*.exposures"), key=_age, reverse=True):
            for body in _bodies(path, name):
                record = _decode(body)
                if record.request["request_id"] == request_id:
                    return record
        return None

    def flush(self, seconds: float = 1.0) -> bool:
        """Wait until what was taken before is written; False when that takes longer."""
        done = threading.Event()
        try:
            self._queue.put(done, timeout=seconds)
        except queue.Full:
            return False
        return done.wait(seconds)

    def close(self) -> None:
        """Write what is waiting and stop."""
        self.flush()
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return  # the thread is a daemon: it ends with the process
        self._thread.join(2)

    def _write(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            answers = [entry for entry in batch if isinstance(entry, Answer)]
            try:
                self._append(answers)
            except (OSError, ValueError):
                self.failed += len(answers)
                self._refused_at = time.monotonic()
                self._end_segment()
            for entry in batch:
                if isinstance(entry, threading.Event):
                    entry.set()
            if None in batch:
                self._end_segment()
                return

    def _append(self, answers: list[Answer]) -> None:
        """Write records in one call. Raises `OSError` when the disk refuses, `ValueError` for an answer that is no record."""
        if not answers:
            return
        if time.monotonic() - self._refused_at < _PAUSE_SECONDS:
            self.failed += len(answers)
            return
        chunks = []
        for answer in answers:
            body = _encode(record_of(answer))
            chunks.append(_HEADER.pack(len(body), zlib.crc32(body), _name(answer.request_id)) + body)
        data = b"".join(chunks)
        file = self._segment()
        while data:
            data = data[os.write(file, data) :]
        self._size += sum(map(len, chunks))
        self.written += len(answers)

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
