"""What travels between the servers of a split recommender: the question with its user's state, candidates with the user's side of the
models, scores. Binary, little-endian.

A frame is a fixed header (magic, version, kind, digest of the bundle, length of the body) and a body whose every length is checked before
it is read: whatever the bytes, `read` gives a message or raises `WireError`. Rows only mean something within one bundle, so a frame
of another bundle is refused by both sides (`OtherBundle`).
The user's side is made once, by retrieval, and travels on to ranking. A frame is a list of buffers, sent as they are; arrays of numbers
come first in it, at multiples of four bytes, so that they are read where they lie.
Shapes: C candidates, K kept by the light ranker, S sources, D the user's vector, L and H the rankers' user halves.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import isfinite
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.index import descending
from serving.messages import MAX_ID, MAX_K
from serving.query import Candidates, Request
from serving.rankers import UserSide
from serving.recommender import Recommender, Scores
from serving.state import SESSION_TYPES, BadState, UserState

VERSION = 2
MAX_FRAME = 16 << 20  # bytes
MAX_CANDIDATES = 100_000
MAX_SOURCES = 64
RETRIEVE, CANDIDATES, RANK, SCORES = 1, 2, 3, 4

_HEADER = struct.Struct("<4sHH32sI")
_MAGIC = b"SLWR"
_ASKED = struct.Struct("<IdB6HI")  # k, day, discover, lengths of six texts, length of the state
_POOL = struct.Struct("<IHHHH")  # C, S, D, L, H; the last three 0: without the user's side
_SCORED = struct.Struct("<III")  # C, K, with heavy
_TEXTS = ("user_id", "request_id", "place", "region", "device_type", "page")
Buffer = bytes | memoryview


class WireError(ValueError):
    """The bytes are not a message of this protocol."""


class OtherBundle(WireError):
    """The peer serves another bundle; the message names both."""


@dataclass(frozen=True)
class Shape:
    """What the bundle's rows and widths are: nothing beyond them is read."""

    items: int
    sources: int
    side: tuple[int, int, int]  # D, L, H

    @classmethod
    def of(cls, recommender: Recommender) -> "Shape":
        side = recommender.request(recommender.query(Request("", 1, recommender.catalogue.cut_day), UserState("")))
        widths = (side.vector.size, side.light.size, side.heavy.size)
        return cls(len(recommender.catalogue), len(recommender.sources), widths)


@dataclass(frozen=True)
class Asked:
    """A question and what is known of its user."""

    request: Request
    state: UserState


def retrieve_frame(digest: str, request: Request, state: UserState) -> list[Buffer]:
    return _frame(RETRIEVE, digest, *_asked(request, state))


def rank_frame(digest: str, request: Request, state: UserState, pool: Candidates, side: UserSide | None) -> list[Buffer]:
    return _frame(RANK, digest, *_pool(pool, side), *_asked(request, state))


def candidates_frame(digest: str, pool: Candidates, side: UserSide | None) -> list[Buffer]:
    return _frame(CANDIDATES, digest, *_pool(pool, side))


def scores_frame(digest: str, scores: Scores, pool: Candidates) -> list[Buffer]:
    order = scores.order if scores.order is not None else descending(scores.light)
    heavy = () if scores.heavy is None else (_raw(scores.heavy, "<f4"),)
    head = _SCORED.pack(len(scores.light), len(scores.kept), scores.heavy is not None)
    return _frame(SCORES, digest, head, _raw(scores.light, "<f4"), *heavy, _raw(order, "<i4"))


def read_retrieve(frame: Buffer, digest: str) -> Asked:
    reader = _Reader(frame, RETRIEVE, digest)
    return reader.ended(reader.asked())


def read_rank(frame: Buffer, digest: str, shape: Shape) -> tuple[Asked, Candidates, UserSide | None]:
    reader = _Reader(frame, RANK, digest)
    pool, side = reader.pool(shape)
    return reader.ended((reader.asked(), pool, side))


def read_candidates(frame: Buffer, digest: str, shape: Shape) -> tuple[Candidates, UserSide | None]:
    reader = _Reader(frame, CANDIDATES, digest)
    return reader.ended(reader.pool(shape))


def read_scores(frame: Buffer, digest: str, candidates: int) -> Scores:
    """Scores of `candidates` candidates."""
    reader = _Reader(frame, SCORES, digest)
    return reader.ended(reader.scores(candidates))


T = TypeVar("T")


class _Reader:
    """A cursor over a frame that never goes past its end."""

    def __init__(self, frame: Buffer, kind: int, digest: str) -> None:
        if len(frame) < _HEADER.size:
            raise WireError(f"a frame of {len(frame)} bytes is shorter than its header of {_HEADER.size}")
        magic, version, found, named, length = _HEADER.unpack_from(frame)
        if magic != _MAGIC or version != VERSION:
            raise WireError(f"expected a frame of version {VERSION}, got {magic!r} version {version}: run one release on both sides")
        if found != kind:
            raise WireError(f"expected a frame of kind {kind}, got {found}")
        if length != len(frame) - _HEADER.size:
            raise WireError(f"the header says {length} bytes follow, {len(frame) - _HEADER.size} do")
        if named != _digest(digest):
            raise OtherBundle(f"this server has bundle {digest}, the frame is for sha256:{named.hex()}: serve one bundle on all sides")
        self._frame, self._at = memoryview(frame), _HEADER.size

    def ended(self, message: T) -> T:
        if self._at != len(self._frame):
            raise WireError(f"{len(self._frame) - self._at} bytes are left after the message")
        return message

    def _unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self._bytes(form.size))

    def _bytes(self, count: int) -> memoryview:
        if count > len(self._frame) - self._at:
            raise WireError(f"{count} bytes were announced, {len(self._frame) - self._at} are left")
        self._at += count
        return self._frame[self._at - count : self._at]

    def _array(self, dtype: str, count: int) -> NDArray[Any]:
        return np.frombuffer(self._bytes(count * np.dtype(dtype).itemsize), dtype)

    def _finite(self, *counts: int) -> list[NDArray[np.float32]]:
        """Arrays that lie one after the other, looked through at once."""
        values = self._array("<f4", sum(counts))
        if not np.isfinite(values).all():
            raise WireError("a score is not a finite number")
        ends = list(accumulate(counts))
        return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _rows(self, count: int, below: int) -> NDArray[np.int32]:
        rows = self._array("<i4", count)
        if count and (rows.min() < 0 or rows.max() >= below):
            raise WireError(f"a row is outside 0 to {below - 1}")
        return rows

    def asked(self) -> Asked:
        k, day, discover, *lengths = self._unpack(_ASKED)
        if not 1 <= k <= MAX_K or not isfinite(day) or discover > 1 or max(lengths[:-1]) > 4 * MAX_ID:
            raise WireError("the question's k, day, flag or a text's length is out of range")
        try:
            texts = {name: str(self._bytes(length), "utf-8") for name, length in zip(_TEXTS, lengths, strict=False)}
            state = UserState.unpack(bytes(self._bytes(lengths[-1])))
        except (UnicodeDecodeError, BadState) as error:
            raise WireError(f"the question cannot be read ({error})") from None
        if len(state.session_types) and state.session_types.max() >= len(SESSION_TYPES):
            raise WireError(f"a session event is of type {int(state.session_types.max())}, known are {len(SESSION_TYPES)}")
        return Asked(Request(k=k, at_day=day, discover=bool(discover), **texts), state)

    def pool(self, shape: Shape) -> tuple[Candidates, UserSide | None]:
        count, width, *side = self._unpack(_POOL)
        if count > MAX_CANDIDATES or width != shape.sources or tuple(side) not in (shape.side, (0, 0, 0)):
            raise WireError(f"{count} candidates of {width} sources and a side of {side}, expected at most {MAX_CANDIDATES} and {shape}")
        rows = self._rows(count, shape.items)
        fused, scores, vector, light, heavy = self._finite(count, count * width, *side)
        ranks = self._array("<f4", count * width).reshape(count, width)
        if count and width and not ranks.min() >= 0:
            raise WireError("a rank is below 0 or no number")
        seen = self._array("u1", count)
        if count and seen.max() > 1:
            raise WireError("a flag is neither 0 nor 1")
        made = UserSide(vector, light[None], heavy[None]) if any(side) else None
        return Candidates(rows, scores.reshape(count, width), ranks, fused, seen.view(bool)), made

    def scores(self, candidates: int) -> Scores:
        count, kept, with_heavy = self._unpack(_SCORED)
        if count != candidates or kept > count or with_heavy > 1:
            raise WireError(f"scores of {count} candidates, {kept} kept, expected {candidates}")
        light, heavy = self._finite(count, kept if with_heavy else 0)
        order = self._rows(count, count)
        if count and np.bincount(order, minlength=count).max() > 1:
            raise WireError("a candidate is named twice")
        return Scores(light, order[:kept], heavy if with_heavy else None, order=order)


def _frame(kind: int, digest: str, *parts: Buffer) -> list[Buffer]:
    length = sum(map(len, parts))
    if length > MAX_FRAME:
        raise WireError(f"a body of {length} bytes is over {MAX_FRAME}")
    return [_HEADER.pack(_MAGIC, VERSION, kind, _digest(digest), length), *parts]


def _asked(request: Request, state: UserState) -> tuple[Buffer, ...]:
    texts = [getattr(request, name).encode() for name in _TEXTS]
    packed = state.pack()
    return _ASKED.pack(request.k, request.at_day, request.discover, *map(len, texts), len(packed)), *texts, packed


def _pool(pool: Candidates, side: UserSide | None) -> Sequence[Buffer]:
    halves = (side.vector, side.light, side.heavy) if side is not None else ()
    widths = [half.size for half in halves] or [0, 0, 0]
    return (
        _POOL.pack(*pool.source_scores.shape, *widths), _raw(pool.rows, "<i4"), _raw(pool.fused, "<f4"),
        _raw(pool.source_scores, "<f4"), *(_raw(half, "<f4") for half in halves), _raw(pool.source_ranks, "<f4"), _raw(pool.seen, "u1"),
    )  # fmt: skip


def _raw(values: NDArray[Any], dtype: str) -> Buffer:
    """The array's bytes, not copied where they are as they should be."""
    return np.ascontiguousarray(values, dtype).data.cast("B") if values.size else b""


@lru_cache(4)
def _digest(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
