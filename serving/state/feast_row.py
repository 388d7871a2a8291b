"""A user's row in Feast's online store, read in Feast's own format without Feast: of SQLite's tables, or of Redis's hashes.

The format is Feast's of entity keys of version 3: a key is its join key and its value, each as type, length and bytes; a value is the one
set field of a `ValueProto`; in Redis a field's name is a murmur hash of view and feature. A test holds it to `get_online_features`.
Shapes: Fu user features.
"""

import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from serving.bundle.arrays import Floats

_STRING = 2  # Feast's ValueType
_VARINT, _DOUBLE, _FLOAT = (0x18, 0x20, 0x38), 0x29, 0x35  # tags of a value: int32, int64, bool; double; float
_LOOK_SECONDS = 0.25  # how often it is looked at whether the file is still the one at the path
_NAN = float("nan")


class Row(NamedTuple):
    """What the store knows of a user."""

    values: Floats  # (Fu,) NaN where it knows nothing
    day: float  # days since 1970 that the oldest view's row speaks of; NaN: it has no row of the user


@dataclass(frozen=True)
class Layout:
    """Which rows are a user's: the Feast project, the join key, and the features of each view, in the order of the service."""

    project: str
    key: str
    views: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Layout":
        """As `bundle.json` keeps it."""
        return cls(told["project"], told["key"], tuple((view, tuple(names)) for view, names in told["views"]))

    def entity_key(self, user_id: str) -> bytes:
        """The user as Feast writes it into a key."""
        name, value = self.key.encode(), user_id.encode()
        return struct.pack(f"<III{len(name)}sII{len(value)}s", 1, _STRING, len(name), name, _STRING, len(value), value)


class SqliteRows:
    """The file of Feast's SQLite store. Who writes it replaces it whole; it is opened anew when it is another one, or was not there."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._layout, self._local = path, layout, threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._queries = [
            f'SELECT feature_name, value, event_ts FROM "{layout.project}_{view}" WHERE entity_key = ?' for view, _ in layout.views
        ]

    def read(self, user_id: str) -> Row:
        """The user's row; a store that is not there knows nothing. Raises `sqlite3.Error` where it cannot be read."""
        db, key = self._db(), self._layout.entity_key(user_id)
        parts = []
        for query, (_, names) in zip(self._queries, self._layout.views, strict=True):
            rows = db.execute(query, (key,)).fetchall() if db is not None else []
            found = {name: value for name, value, _ in rows}
            parts.append(([found.get(name) for name in names], min((_day(when) for _, _, when in rows), default=_NAN)))
        return _row(parts)

    def _db(self) -> sqlite3.Connection | None:
        """This thread's connection."""
        local = self._local
        if monotonic() >= getattr(local, "look_at", 0.0):
            local.look_at, file = monotonic() + _LOOK_SECONDS, _file(self._path)
            if file != getattr(local, "file", None):
                local.file, before, local.db = file, getattr(local, "db", None), None
                if before is not None:
                    self._opened.remove(before)
                    before.close()
                if file is not None:
                    local.db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, check_same_thread=False)
                    self._opened.append(local.db)
        found: sqlite3.Connection | None = local.db if hasattr(local, "db") else None
        return found

    def close(self) -> None:
        for connection in self._opened:
            connection.close()


class HashRows:
    """Feast's hash of a user in Redis: what to ask for, and what comes back. Who asks is `serving/state/redis.py`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.fields: list[bytes] = []  # of all views: when, then its features
        for view, names in layout.views:
            self.fields += [f"_ts:{view}".encode(), *(struct.pack("<I", murmur(f"{view}:{name}".encode())) for name in names)]

    def key(self, user_id: str) -> bytes:
        return self._layout.entity_key(user_id) + self._layout.project.encode()

    def row(self, values: Sequence[bytes | None]) -> Row:
        """The row in what `HMGET key *fields` answered."""
        parts, at = [], 0
        for _, names in self._layout.views:
            when = values[at]
            parts.append((values[at + 1 : at + 1 + len(names)], _NAN if when is None else _stamp(when)))
            at += 1 + len(names)
        return _row(parts)


def _row(parts: Iterable[tuple[Sequence[bytes | None], float]]) -> Row:
    """One row of the views' values; a view without a moment has no row."""
    values: list[float] = []
    days = []
    for found, day in parts:
        values += [_NAN if day != day or value is None else number(value) for value in found]
        days.append(day)
    known = [day for day in days if day == day]
    return Row(np.array(values, np.float32), min(known) if known else _NAN)


def number(value: bytes) -> float:
    """The number in a `ValueProto`; NaN where it holds none."""
    tag = value[0] if value else 0
    if tag == _FLOAT:
        return float(struct.unpack_from("<f", value, 1)[0])
    if tag == _DOUBLE:
        return float(struct.unpack_from("<d", value, 1)[0])
    if tag in _VARINT:
        whole = _varint(value, 1)[0]
        return float(whole - (1 << 64) if whole >= 1 << 63 else whole)
    return _NAN


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, least first, and where it ends."""
    whole = shift = 0
    while True:
        byte = value[at]
        whole |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return whole, at


def _stamp(value: bytes) -> float:
    """Days since 1970 in a protobuf `Timestamp`: seconds, nanoseconds."""
    fields, at = {1: 0, 2: 0}, 0
    while at < len(value):
        tag, at = value[at], at + 1
        fields[tag >> 3], at = _varint(value, at)
    return (fields[1] + fields[2] / 1e9) / 86_400


def _day(when: object) -> float:
    """Days since 1970 of a moment as Feast writes it into SQLite: UTC's wall clock, taken for this machine's."""
    local = datetime.fromtimestamp(float(when)) if isinstance(when, int | float) else datetime.fromisoformat(str(when))  # noqa: DTZ006
    return local.replace(tzinfo=UTC).timestamp() / 86_400


def _file(path: Path) -> tuple[int, int] | None:
    """What file is at the path now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def murmur(data: bytes) -> int:
    """MurmurHash3 of 32 bits, seed 0: how Feast names a feature in Redis."""
    hashed, whole = 0, len(data) // 4 * 4
    for at in range(0, whole, 4):
        hashed ^= _mixed(int.from_bytes(data[at : at + 4], "little"))
        hashed = (_turned(hashed, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    if whole < len(data):
        hashed ^= _mixed(int.from_bytes(data[whole:], "little"))
    hashed ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashed = ((hashed ^ (hashed >> shift)) * factor) & 0xFFFFFFFF
    return hashed ^ (hashed >> 16)


def _mixed(part: int) -> int:
    return (_turned((part * 0xCC9E2D51) & 0xFFFFFFFF, 15) * 0x1B873593) & 0xFFFFFFFF


def _turned(number: int, bits: int) -> int:
    return ((number << bits) | (number >> (32 - bits))) & 0xFFFFFFFF
