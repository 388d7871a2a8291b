"""What travels between the servers of a split recommender: the question, brought to rows and vectors by the front; candidates; scores.

A frame is a fixed header (magic, version, kind, digest of the bundle, length of the body) and a body: how many there are of each, then all
rows, all scores, ranks, flags and texts, each end to end. Little-endian, numbers at multiples of four bytes, read where they lie. Whatever
the bytes, `read` gives a message or raises `WireError`. Rows only mean something within one bundle, so a frame of another bundle is
refused by both sides (`OtherBundle`).
Kept by hand: as msgspec structs with a field of bytes an array, checked alike, a question with 1000 candidates took 157 us of CPU to be
written and read; this takes 115.
Shapes: H history items, E session events, F followed items, T decay constants, C candidates, N rows that tell what is asked for, K kept by
the light ranker, S sources.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import Floats, Rows
from serving.bundle.bundle import OtherBundle
from serving.messages import MAX_ID, MAX_K
from serving.query import Candidates, History, Query, Request
from serving.ranking.rankers import UserSide
from serving.ranking.scoring import Scores
from serving.recommender import Recommender
from serving.restriction import others
from serving.retrieval.top_k import descending
from serving.state.user_state import UserState

VERSION = 5
MAX_FRAME = 16 << 20  # bytes
MAX_CANDIDATES = 100_000
RETRIEVE, CANDIDATES, RANK, SCORES = 1, 2, 3, 4

_HEADER = struct.Struct("<4sHH32sI")
_MAGIC = b"SLWR"
_ASKED = struct.Struct(
    "<dIIIIIIHHHBBB3x"
)  # day, k, H, E, F, C, N, lengths of three texts, discover, few_visits, kept; C is 0 without candidates
_FOUND = struct.Struct("<I")  # C
_SCORED = struct.Struct("<III")  # C, K, with heavy
FAULTS = (
    "", "a row is outside the catalogue, or the candidates", "a score is not a finite number", "a rank is below 0 or no number",
    "a flag is neither 0 nor 1", "a candidate is named twice",
)  # fmt: skip
_ROW, _SCORE, _FLAG = np.dtype("<i4"), np.dtype("<f4"), np.dtype("u1")
_KINDS: tuple["np.dtype[Any]", ...] = (_ROW, _SCORE, _SCORE, _FLAG)  # rows, scores, ranks, flags
_NONE = Candidates(np.empty(0, _ROW), np.empty(0, _SCORE), np.empty(0, _SCORE), np.empty(0, _SCORE), np.empty(0, np.bool_))
_STAYS = np.empty(0, np.intp)  # places in the state's arrays, which do not travel


Buffer = bytes | memoryview


class Frame(NamedTuple):
    """A message to be sent: its length in bytes, and the buffers that hold it."""

    size: int
    parts: tuple[Any, ...]

    def behind(self, head: bytes) -> bytes:
        """One piece of bytes: a head that tells the length at its %d, and the message."""
        return b"".join((head % self.size, *self.parts))


class WireError(ValueError):
    """The bytes are not a message of this protocol."""


@dataclass(frozen=True)
class Shape:
    """What the bundle's rows and widths are: nothing beyond them is read."""

    items: int
    sources: int
    side: tuple[int, int, int]  # of the user's vector and of both rankers' halves

    @classmethod
    def of(cls, recommender: Recommender) -> "Shape":
        side = recommender.user_side(recommender.query(Request("", 1, recommender.catalogue.cut_day), UserState("")))
        widths = (side.vector.size, side.light.size, side.heavy.size)
        return cls(len(recommender.catalogue), len(recommender.sources), widths)


@dataclass(frozen=True)
class SentQuestion:
    """A question, what its user has had on this bundle's rows, and what the models know of them."""

    request: Request  # place and region are the user's own where the client named none
    history: History
    session: tuple[Rows, Floats]  # (E,), (E,)
    followed: Rows  # (F,)
    few_visits: bool
    side: UserSide
    refused: Rows  # (N,) that the question leaves out

    def query(self, recommender: Recommender) -> Query:
        """The question to a recommender of the same bundle."""
        learning = recommender.system.learning
        return Query.told(
            self.request, recommender.catalogue, learning, self.history, self.session, self.followed, self.few_visits, self.refused
        )


def retrieve_frame(digest: str, query: Query, side: UserSide) -> Frame:
    return _asked_frame(RETRIEVE, digest, query, side, _NONE)


def rank_frame(digest: str, query: Query, side: UserSide, pool: Candidates) -> Frame:
    return _asked_frame(RANK, digest, query, side, pool)


def candidates_frame(digest: str, pool: Candidates) -> Frame:
    return _frame(CANDIDATES, digest, _FOUND.pack(len(pool)), [pool.rows], _scores_of(pool), pool.seen)


def scores_frame(digest: str, scores: Scores) -> Frame:
    order = scores.order if scores.order is not None else descending(scores.light)
    told = [scores.light] if scores.heavy is None else [scores.light, scores.heavy]
    return _frame(SCORES, digest, _SCORED.pack(len(scores.light), len(scores.kept), scores.heavy is not None), [order], told)


def read_retrieve(frame: Buffer, digest: str, shape: Shape) -> SentQuestion:
    return _read_asked(frame, RETRIEVE, digest, shape)[0]


def read_rank(frame: Buffer, digest: str, shape: Shape) -> tuple[SentQuestion, Candidates]:
    return _read_asked(frame, RANK, digest, shape)


def read_candidates(frame: Buffer, digest: str, shape: Shape) -> Candidates:
    body = _BodyReader(frame, CANDIDATES, digest, _FOUND)
    (count,), listed = body.head, body.head[0] * shape.sources
    return _candidates(shape, *body.numbers(shape.items, (count,), (count, listed), listed, count))


def read_scores(frame: Buffer, digest: str, candidates: int) -> Scores:
    """Scores of `candidates` candidates."""
    body = _BodyReader(frame, SCORES, digest, _SCORED)
    count, kept, with_heavy = body.head
    if count != candidates or kept > count or with_heavy > 1:
        raise WireError(f"scores of {count} candidates, {kept} kept, expected {candidates}")
    order, light, heavy, *_ = body.numbers(count, (count,), (count, kept * with_heavy), once=True)
    return Scores(light, order[:kept], heavy if with_heavy else None, order=order)


class _BodyReader:
    """What follows the header of a frame, read from its head to its end. What a frame holds is checked before anything of it is read."""

    def __init__(self, frame: Buffer, kind: int, digest: str, form: struct.Struct) -> None:
        least = _HEADER.size + form.size
        if len(frame) < least:
            raise WireError(f"a frame of {len(frame)} bytes is shorter than its header of {least}")
        magic, version, found, named, length = _HEADER.unpack_from(frame)
        if magic != _MAGIC or version != VERSION:
            raise WireError(f"expected a frame of version {VERSION}, got {magic!r} version {version}: run one release on both sides")
        if found != kind:
            raise WireError(f"expected a frame of kind {kind}, got {found}")
        if length != len(frame) - _HEADER.size:
            raise WireError(f"the header says {length} bytes follow, {len(frame) - _HEADER.size} do")
        if named != _digest(digest):
            raise OtherBundle(f"this server has bundle {digest}, the frame is for sha256:{named.hex()}: serve one bundle on all sides")
        self.head: tuple[Any, ...] = form.unpack_from(frame, _HEADER.size)
        self._frame, self._at = frame, least

    def numbers(
        self, below: int, rows: Sequence[int], scores: Sequence[int], ranks: int = 0, flags: int = 0, texts: int = 0, once: bool = False
    ) -> list[NDArray[Any]]:
        """As many arrays of rows and scores as there are counts, ranks and flags; `texts` bytes are left then, and nothing else."""
        counts, frame, begin = (sum(rows), sum(scores), ranks, flags), self._frame, self._at
        self._at = begin + 4 * (counts[0] + counts[1] + ranks) + flags
        if self._at + texts != len(frame):
            raise WireError(f"expected {self._at + texts - begin} bytes of numbers and texts, {len(frame) - begin} are there")
        at, found = begin, []
        for dtype, count in zip(_KINDS, counts, strict=True):
            found.append(np.ndarray(count, dtype, frame, at))
            at += count * dtype.itemsize
        fault = _fault(below, once, *found)
        if fault:
            told = "{} rows below {}, {} scores, {} ranks and {} flags".format(counts[0], below, *counts[1:])
            raise WireError(f"{FAULTS[fault]}, in a frame of {told}: run one release on both sides")
        return [*_parts(found[0], rows), *_parts(found[1], scores), *found[2:]]

    def texts(self, lengths: Sequence[int]) -> list[str]:
        texts = []
        try:
            for length in lengths:
                self._at += length
                texts.append(str(self._frame[self._at - length : self._at], "utf-8"))
        except UnicodeDecodeError as error:
            raise WireError(f"a text of the question cannot be read ({error})") from None
        return texts


def _read_asked(frame: Buffer, kind: int, digest: str, shape: Shape) -> tuple[SentQuestion, Candidates]:
    """The question and its candidates, of whom a question to retrieval has none."""
    body, sources = _BodyReader(frame, kind, digest, _ASKED), shape.sources
    day, k, had, events, follows, count, told, *lengths, discover, few_visits, kept = body.head
    known = 1 <= k <= MAX_K and isfinite(day) and max(discover, few_visits, kept) <= 1 and max(lengths) <= 4 * MAX_ID
    if not known or count > (MAX_CANDIDATES if kind == RANK else 0):
        raise WireError(
            f"a question: k {k}, day {day}, flags {(discover, few_visits, kept)}, texts of {lengths} bytes, {count} candidates: expected k"
            f" from 1 to {MAX_K}, a finite day, flags 0 or 1, texts to {4 * MAX_ID}, up to {MAX_CANDIDATES} candidates (to retrieval none)"
        )
    listed = count * sources
    widths = (had, had, had, len(TAUS_DAYS) * had, events, *shape.side, count, listed)
    found = body.numbers(shape.items, (had, events, follows, count, told), widths, listed, count, sum(lengths))
    rows, clicked, followed, candidates, named, counts, age, span, decayed, weights, vector, light, heavy, *of_pool = found
    if (np.diff(rows) <= 0).any():
        raise WireError(f"the {had} rows of a history do not rise: run one release on both sides")
    if any((numbers < 0).any() for numbers in (counts, age, span, decayed, weights)):
        raise WireError("a count, an age or a weight of a question is below 0: run one release on both sides")
    pool = _candidates(shape, candidates, *of_pool)
    user_id, place, region = body.texts(lengths)
    request = Request(user_id, k, day, place=place, region=region, discover=bool(discover))
    history = History(rows, _STAYS, counts, age, span, decayed.reshape(len(TAUS_DAYS), had))
    side, refused = UserSide(vector, light[None], heavy[None]), others(shape.items, named) if kept else np.sort(named)
    return SentQuestion(request, history, (clicked, weights), followed, bool(few_visits), side, refused), pool


def _asked_frame(kind: int, digest: str, query: Query, side: UserSide, pool: Candidates) -> Frame:
    request, state, history, (clicked, weights) = query.request, query.state, query.history, query.session
    texts = [
        text.encode() for text in ("" if request.erased else request.user_id, request.place or state.place, request.region or state.region)
    ]
    refused, items = query.refused if kind == RETRIEVE else query.refused[:0], len(query.catalogue)
    kept = 2 * len(refused) > items  # the shorter of what is left out and what is asked for
    named = others(items, refused) if kept else refused
    counts = (len(history.rows), len(clicked), len(query.followed), len(pool), len(named), *map(len, texts))
    head = _ASKED.pack(request.at_day, request.k, *counts, request.discover, query.few_visits, kept)
    rows = [history.rows, clicked, query.followed, pool.rows, named]
    told = [history.counts, history.age, history.span, history.decayed, weights, side.vector, side.light, side.heavy]
    return _frame(kind, digest, head, rows, [*told, *_scores_of(pool)], pool.seen, *texts)


def _scores_of(pool: Candidates) -> list[Floats]:
    return [pool.fused, pool.source_scores, pool.source_ranks]


def _frame(kind: int, digest: str, head: bytes, rows: Sequence[Rows], scores: Sequence[Floats], *more: Any) -> Frame:
    """`more`: flags and texts, as they are."""
    parts: list[Any] = [np.ascontiguousarray(one, _ROW) for one in rows]
    parts += [np.ascontiguousarray(one, _SCORE) for one in scores]
    length = len(head) + sum([one.nbytes for one in parts]) + sum(map(len, more))
    if length > MAX_FRAME:
        raise WireError(f"a body of {length} bytes is over {MAX_FRAME}")
    return Frame(_HEADER.size + length, (_HEADER.pack(_MAGIC, VERSION, kind, _digest(digest), length), head, *parts, *more))


def _candidates(shape: Shape, rows: Rows, fused: Floats, scores: Floats, ranks: Floats, seen: NDArray[np.uint8]) -> Candidates:
    wide = (len(rows), shape.sources)
    return Candidates(rows, scores.reshape(wide), ranks.reshape(wide), fused, seen.view(np.bool_))


def _fault(below: int, once: bool, rows: Rows, scores: Floats, ranks: Floats, flags: NDArray[np.uint8]) -> int:
    """What is wrong: a place in `FAULTS`."""
    if len(rows) and (rows.min() < 0 or rows.max() >= below):
        return 1
    if not np.isfinite(scores).all():
        return 2
    if not (ranks >= 0).all():
        return 3
    if (flags > 1).any():
        return 4
    return 5 * int(once and len(np.unique(rows)) < len(rows))


def _parts(values: NDArray[Any], counts: Sequence[int]) -> list[NDArray[Any]]:
    """Arrays that lie one after the other."""
    at, parts = 0, []
    for count in counts:
        parts.append(values[at : at + count])
        at += count
    return parts


@lru_cache(4)
def _digest(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))
