"""What is known of one user when a request comes: history, session, features. One packed value in the online store.

History is kept per distinct item, decayed to that item's own last event, so that one event updates one row, in any order:
    c(t) = c(last) * exp(-(t - last) / tau);   an event at t >= last:  c = c * exp(-(t - last) / tau) + 1,  last = t
Shapes: H distinct items in the history, T decay constants, E session events, Fu user features.
"""

import struct
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import ArrayFolder
from serving.bundle.catalogue import item_key
from serving.event_meanings import type_code

SESSION_LENGTH = 64  # latest hints kept
HISTORY_LENGTH = 4096  # distinct items kept, those with the greatest decayed counts; what a person never has and a script may
MOST = np.float32(1000)  # a count, plain or decayed, never exceeds this
SAID_LENGTH = 1024  # items of which a user said what they want, that are kept: the latest
AGAIN, NEVER, LESS, FOLLOWED = 0, 1, 2, 3  # what was said: taken back, never to be shown, liked less, more of its brand
_HEADER = struct.Struct("<4sHHIIIIddQ")  # magic, version, T, H, E, Fu, N, created_day, updated_day, schema key
_MAGIC, _VERSION = b"SLUS", 3
_DTYPES = tuple(map(np.dtype, ("u8", "f8", "f8", "u8", "f8", "u8", "f8", "f4", "f4", "f4", "u4", "u1")))  # of the arrays, as packed


class BadState(ValueError):
    """The stored bytes are not a user state of this version."""


def _empty(dtype: str, *shape: int) -> NDArray:  # type: ignore[type-arg]
    return np.empty(shape or (0,), dtype)


@dataclass(frozen=True)
class UserState:
    """One user. History rows are sorted by item key; session events by time, oldest first."""

    user_id: str
    keys: NDArray[np.uint64] = field(default_factory=lambda: _empty("u8"))  # (H,) item keys
    first_day: NDArray[np.float64] = field(default_factory=lambda: _empty("f8"))  # (H,) days since 1970
    last_day: NDArray[np.float64] = field(default_factory=lambda: _empty("f8"))  # (H,)
    counts: NDArray[np.float32] = field(default_factory=lambda: _empty("f4"))  # (H,) positive events
    decayed: NDArray[np.float32] = field(default_factory=lambda: _empty("f4", 0, len(TAUS_DAYS)))  # (H, T) their weights, at last_day
    session_keys: NDArray[np.uint64] = field(default_factory=lambda: _empty("u8"))  # (E,)
    session_days: NDArray[np.float64] = field(default_factory=lambda: _empty("f8"))  # (E,)
    session_types: NDArray[np.uint32] = field(default_factory=lambda: _empty("u4"))  # (E,) serving.event_meanings.type_code
    said_keys: NDArray[np.uint64] = field(default_factory=lambda: _empty("u8"))  # (N,) items of which something was said, by key
    said_days: NDArray[np.float64] = field(default_factory=lambda: _empty("f8"))  # (N,) when, the last time
    said: NDArray[np.uint8] = field(default_factory=lambda: _empty("u1"))  # (N,) AGAIN, NEVER, LESS or FOLLOWED
    features: NDArray[np.float32] = field(default_factory=lambda: _empty("f4"))  # (Fu,) user_stats; empty: not known
    schema_key: int = 0  # of the feature names `features` were made with; 0 when empty
    place: str = ""  # usual store
    region: str = ""
    consent: str = "full"
    created_day: float = float("nan")
    updated_day: float = float("nan")  # of the latest event folded in
    _packed: bytes = field(default=b"", init=False, compare=False, repr=False)  # its bytes, once they are known; a changed copy has none

    def same_as(self, other: "UserState") -> bool:
        """Whether both say the same of the user."""
        return self is other or self.pack() == other.pack()

    @property
    def is_unknown(self) -> bool:
        return not len(self.keys) and not len(self.session_keys)

    @property
    def hidden(self) -> NDArray[np.uint64]:
        """Keys of the items this user never wants to see again."""
        return self.said_keys[self.said == NEVER] if len(self.said) else self.said_keys

    @property
    def disliked(self) -> NDArray[np.uint64]:
        """Keys of the items this user likes less, those they have had again since left out."""
        if not len(self.said):
            return self.said_keys
        keys, days = self.said_keys[self.said == LESS], self.said_days[self.said == LESS]
        if not len(keys) or not len(self.keys):
            return keys
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return keys[(self.keys[at] != keys) | (self.last_day[at] <= days)]

    @property
    def followed(self) -> NDArray[np.uint64]:
        """Keys of the items by whose brand this user follows it."""
        return self.said_keys[self.said == FOLLOWED] if len(self.said) else self.said_keys

    def with_features(self, features: NDArray[np.float32], key: int) -> "UserState":
        """The same user with other features (Fu,) of the names `key` stands for."""
        state = UserState.__new__(UserState)
        vars(state).update(vars(self), features=features, schema_key=key, _packed=b"")
        return state

    def with_positive(self, key: int, day: float, weight: float = 1.0) -> "UserState":
        """The state after one positive event (a purchase) of that weight. O(H); order of events does not matter."""
        at = int(np.searchsorted(self.keys, np.uint64(key)))
        taus = np.asarray(TAUS_DAYS)
        updated = day if np.isnan(self.updated_day) else max(self.updated_day, day)
        if at < len(self.keys) and int(self.keys[at]) == key:
            last, first = self.last_day.copy(), self.first_day.copy()
            counts, decayed = self.counts.copy(), self.decayed.copy()
            if day >= last[at]:
                decayed[at] = decayed[at] * np.exp(-(day - last[at]) / taus) + weight
                last[at] = day
            else:
                decayed[at] += weight * np.exp(-(last[at] - day) / taus)
                first[at] = min(first[at], day)
            counts[at] += 1
            return replace(self, last_day=last, first_day=first, counts=counts, decayed=decayed, updated_day=updated)
        return replace(
            self,
            keys=np.insert(self.keys, at, np.uint64(key)),
            first_day=np.insert(self.first_day, at, day),
            last_day=np.insert(self.last_day, at, day),
            counts=np.insert(self.counts, at, np.float32(1)),
            decayed=np.insert(self.decayed, at, np.full(len(taus), weight, np.float32), axis=0),
            updated_day=updated,
        )

    def with_session_event(self, key: int, kind: str, day: float) -> "UserState":
        """The state after a click, view, like, …; the oldest beyond SESSION_LENGTH is dropped."""
        order = slice(-SESSION_LENGTH, None)
        days = np.append(self.session_days, day)
        by_time = np.argsort(days, kind="stable")[order]
        return replace(
            self,
            session_keys=np.append(self.session_keys, np.uint64(key))[by_time],
            session_days=days[by_time],
            session_types=np.append(self.session_types, np.uint32(type_code(kind)))[by_time],
            updated_day=day if np.isnan(self.updated_day) else max(self.updated_day, day),
        )

    def with_positives(
        self, keys: NDArray[np.uint64], days: NDArray[np.float64], weights: NDArray[np.float32] | None = None
    ) -> "UserState":
        """The state after (n,) positive events, each of its weight (or 1), merged with the history by one sort; in any order."""
        if not len(keys):
            return self
        weights = np.ones(len(keys), np.float32) if weights is None else weights
        if len(keys) == 1 and len(self.keys) < HISTORY_LENGTH and max(self.counts.max(initial=0), self.decayed.max(initial=0)) < MOST / 2:
            return self.with_positive(int(keys[0]), float(days[0]), float(weights[0]))
        taus = np.asarray(TAUS_DAYS)
        distinct, at = np.unique(np.concatenate((self.keys, keys)), return_inverse=True)  # (M,), (H + n,)
        when, begun = np.concatenate((self.last_day, days)), np.concatenate((self.first_day, days))
        worth = np.concatenate((self.decayed, np.repeat(weights[:, None], len(taus), axis=1)))
        last, first = np.full(len(distinct), -np.inf), np.full(len(distinct), np.inf)
        np.maximum.at(last, at, when)
        np.minimum.at(first, at, begun)
        worth = worth * np.exp(-(last[at] - when)[:, None] / taus)  # (H + n, T) as of each item's own last event
        decayed = np.stack([np.bincount(at, column, len(distinct)) for column in worth.T], 1)
        counts = np.bincount(at, np.concatenate((self.counts, np.ones(len(keys)))), len(distinct))
        kept = _heaviest(decayed[:, -1] * np.exp((last - last.max()) / taus[-1]))
        return replace(
            self, keys=distinct[kept], first_day=first[kept], last_day=last[kept],
            counts=np.minimum(counts[kept], MOST).astype(np.float32), decayed=np.minimum(decayed[kept], MOST).astype(np.float32),
            updated_day=_later(self.updated_day, float(days.max())),
        )  # fmt: skip

    def with_session_events(self, keys: NDArray[np.uint64], types: NDArray[np.uint32], days: NDArray[np.float64]) -> "UserState":
        """The state after (n,) clicks, views, …, of which only the latest SESSION_LENGTH stay."""
        if not len(keys):
            return self
        all_days = np.concatenate((self.session_days, days))
        by_time = np.argsort(all_days, kind="stable")[-SESSION_LENGTH:]
        return replace(
            self,
            session_keys=np.concatenate((self.session_keys, keys.astype(np.uint64)))[by_time],
            session_days=all_days[by_time],
            session_types=np.concatenate((self.session_types, types.astype(np.uint32)))[by_time],
            updated_day=_later(self.updated_day, float(days.max())),
        )

    def with_said(self, keys: NDArray[np.uint64], said: NDArray[np.uint8], days: NDArray[np.float64]) -> "UserState":
        """The state after (n,) hides, dislikes, …: what was said last of each item holds, in whatever order it comes."""
        if not len(keys):
            return self
        latest = {key: (day, what) for key, day, what in zip(
            self.said_keys.tolist(), self.said_days.tolist(), self.said.tolist(), strict=True
        )}  # fmt: skip
        for key, day, what in zip(keys.tolist(), days.tolist(), said.tolist(), strict=True):
            if key not in latest or (day, what) > latest[key]:
                latest[key] = (day, int(what))
        kept = sorted(sorted(latest.items(), key=lambda one: one[1])[-SAID_LENGTH:])
        return replace(
            self,
            said_keys=np.array([key for key, _ in kept], np.uint64),
            said_days=np.array([day for _, (day, _) in kept]),
            said=np.array([what for _, (_, what) in kept], np.uint8),
            updated_day=_later(self.updated_day, float(days.max())),
        )

    def pack(self) -> bytes:
        """One value for the online store."""
        if self._packed:
            return self._packed
        head = _HEADER.pack(
            _MAGIC, _VERSION, len(TAUS_DAYS), len(self.keys), len(self.session_keys), len(self.features), len(self.said_keys),
            self.created_day, self.updated_day, self.schema_key,
        )  # fmt: skip
        texts = "\0".join((self.user_id, self.place, self.region, self.consent)).encode()
        arrays = (
            self.keys, self.first_day, self.last_day, self.session_keys, self.session_days, self.said_keys, self.said_days,
            self.counts, self.decayed, self.features, self.session_types, self.said,
        )  # fmt: skip
        packed = b"".join((head, struct.pack("<I", len(texts)), texts, *(np.ascontiguousarray(a).data for a in arrays)))
        object.__setattr__(self, "_packed", packed)
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Raises `BadState` when the bytes are not a state of this version."""
        try:
            magic, version, taus, h, e, fu, n, created, updated, schema = _HEADER.unpack_from(packed)
            if magic != _MAGIC or version != _VERSION or taus != len(TAUS_DAYS):
                told = f"expected user state version {_VERSION} with {len(TAUS_DAYS)} decays, got {version} with {taus}"
                raise BadState(f"{told}: materialize again")
            (length,) = struct.unpack_from("<I", packed, _HEADER.size)
            at = _HEADER.size + 4 + length
            user_id, place, region, consent = packed[at - length : at].decode().split("\0")
            parts = []
            for dtype, count in zip(_DTYPES, (h, h, h, e, e, n, n, h, h * taus, fu, e, n), strict=True):
                parts.append(np.ndarray(count, dtype, packed, at))
                at += count * dtype.itemsize
        except (struct.error, ValueError, TypeError, UnicodeDecodeError) as error:
            raise BadState(f"user state of {len(packed)} bytes cannot be read ({error}): materialize again") from error
        keys, first, last, s_keys, s_days, n_keys, n_days, counts, decayed, features, s_types, said = parts
        if n and max(packed[at - n : at]) > FOLLOWED:
            raise BadState(f"user state of {len(packed)} bytes says of an item what cannot be said: materialize again")
        state = cls.__new__(cls)  # all fields at once: one by one, as a frozen class sets them, takes as long as all the rest
        vars(state).update(
            user_id=user_id, keys=keys, first_day=first, last_day=last, counts=counts, decayed=decayed.reshape(h, taus),
            session_keys=s_keys, session_days=s_days, session_types=s_types, said_keys=n_keys, said_days=n_days, said=said,
            features=features, schema_key=schema, place=place, region=region,
            consent=consent, created_day=created, updated_day=updated, _packed=packed if at == len(packed) else b"",
        )  # fmt: skip
        return state


def _heaviest(weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions of the HISTORY_LENGTH greatest weights, ascending; of all where there are no more."""
    if len(weights) <= HISTORY_LENGTH:
        return np.arange(len(weights))
    return np.sort(np.argsort(-weights, kind="stable")[:HISTORY_LENGTH])


def _later(day: float, other: float) -> float:
    """The later of two moments, the first of which may be unknown."""
    return other if np.isnan(day) else max(day, other)


@dataclass(frozen=True)
class StateTable(ArrayFolder):
    """Every user's state at a cut: what training, evaluation and batch read, and what fills the online store.

    Shapes: U users sorted by id, N history rows and S said items of all users end to end.
    """

    user_ids: NDArray[np.bytes_]  # (U,) UTF-8, sorted by bytes
    ends: NDArray[np.int64]  # (U,) where each user's history rows end
    keys: NDArray[np.uint64]  # (N,) sorted within a user
    first_day: NDArray[np.float64]  # (N,)
    last_day: NDArray[np.float64]  # (N,)
    counts: NDArray[np.float32]  # (N,)
    decayed: NDArray[np.float32]  # (N, T) their weights, at last_day
    features: NDArray[np.float32]  # (U, Fu)
    place: NDArray[np.bytes_]  # (U,)
    region: NDArray[np.bytes_]  # (U,)
    consent: NDArray[np.bytes_]  # (U,)
    created_day: NDArray[np.float64]  # (U,)
    feature_names: tuple[str, ...]  # (Fu)
    cut_day: float  # nothing at or after this day was read
    said_ends: NDArray[np.int64] = field(default_factory=lambda: _empty("i8"))  # (U,) where each user's said items end; (0,): none has any
    said_keys: NDArray[np.uint64] = field(default_factory=lambda: _empty("u8"))  # (S,) sorted within a user
    said_days: NDArray[np.float64] = field(default_factory=lambda: _empty("f8"))  # (S,)
    said: NDArray[np.uint8] = field(default_factory=lambda: _empty("u1"))  # (S,) AGAIN, NEVER, LESS or FOLLOWED
    asked_days: NDArray[np.float64] = field(default_factory=lambda: _empty("f8"))  # (U,) when each is asked; (0,): all at the cut

    def __len__(self) -> int:
        return len(self.user_ids)

    def index(self, user_id: str) -> int:
        """The user's index, or -1."""
        name = user_id.encode()
        width = self.user_ids.dtype.itemsize
        if len(name) > width:
            return -1
        at = int(self.user_ids.searchsorted(np.array(name, f"S{width}")))  # of another width all ids would be converted
        return at if at < len(self) and self.user_ids[at] == name else -1

    @cached_property
    def _schema_key(self) -> int:
        return schema_key(self.feature_names)

    def asked_day(self, index: int) -> float:
        """The moment up to which the user's state goes, and at which they are asked: the cut, unless said otherwise."""
        return float(self.asked_days[index]) if len(self.asked_days) else self.cut_day

    def __getitem__(self, index: int) -> UserState:
        rows = slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))
        last = self.last_day[rows]
        said = slice(0, 0)
        if len(self.said_ends):
            said = slice(int(self.said_ends[index - 1]) if index else 0, int(self.said_ends[index]))
        return UserState(
            user_id=bytes(self.user_ids[index]).decode(),
            keys=self.keys[rows],
            first_day=self.first_day[rows],
            last_day=last,
            counts=self.counts[rows],
            decayed=self.decayed[rows],
            said_keys=self.said_keys[said],
            said_days=self.said_days[said],
            said=self.said[said],
            features=self.features[index],
            schema_key=self._schema_key,
            place=bytes(self.place[index]).decode(),
            region=bytes(self.region[index]).decode(),
            consent=bytes(self.consent[index]).decode(),
            created_day=float(self.created_day[index]),
            updated_day=float(np.maximum.reduce(last)) if len(last) else float("nan"),
        )


def schema_key(feature_names: tuple[str, ...]) -> int:
    """A 64-bit name of an ordered list of features: a row made under one is never read under another."""
    return item_key("\n".join(feature_names))
