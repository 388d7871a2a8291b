"""What may be used again for an hour: candidate pools, request sides and lists of a user, until an event or another bundle ends it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from serving.query import Candidates, Query, Rows

V = TypeVar("V")
TTL_SECONDS = 3600.0
_total = np.add.reduce


class TtlCache(Generic[V]):
    """One value a key, each with the version it was made for; the least recently used goes first. Safe between threads.

    `hits`, `misses` and `evictions` only grow: a metric reads them.
    """

    def __init__(self, capacity: int, clock: Callable[[], float], ttl_seconds: float = TTL_SECONDS) -> None:
        self._capacity, self._clock, self._ttl = capacity, clock, ttl_seconds
        self._entries: OrderedDict[Hashable, tuple[float, Hashable, V]] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = self.misses = self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, version: Hashable = None) -> V | None:
        """The value, unless it is too old or was made for another version."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[1] != version or not 0 <= self._clock() - entry[0] < self._ttl:
                self._entries.pop(key, None)
                self.misses += 1
                return None
            self._entries.move_to_end(key)
            self.hits += 1
            return entry[2]

    def put(self, key: Hashable, value: V, version: Hashable = None) -> None:
        with self._lock:
            self._entries[key] = (self._clock(), version, value)
            self._entries.move_to_end(key)
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
                self.evictions += 1

    def drop(self, key: Hashable) -> None:
        """Forget one key: an event of this user came."""
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


@dataclass(frozen=True)
class Pooled:
    """A pool with the side it was made from and the moment it was made for."""

    pool: Candidates
    side: Any
    day: float


class Caches:
    """The caches of one worker for one bundle. A pool counts as the same while the user's state and the asked context are."""

    def __init__(
        self, digest: str, clock: Callable[[], float], users: int = 2_000, lists: int = 50_000, ttl_seconds: float = TTL_SECONDS
    ) -> None:
        self.digest = digest
        self.pools: TtlCache[Pooled] = TtlCache(users, clock, ttl_seconds)  # about 60 KB each
        self.lists: TtlCache[Rows] = TtlCache(lists, clock, 24 * ttl_seconds)  # 0.8 KB each; the rung below the rankers

    def pool(self, query: Query, version: Hashable) -> Pooled | None:
        """The user's pool, where it was made for this `version(query)`."""
        return self.pools.get(query.request.user_id, version)

    def keep_pool(self, query: Query, pooled: Pooled, version: Hashable) -> None:
        self.pools.put(query.request.user_id, pooled, version)

    def user_changed(self, user_id: str) -> None:
        """An event of the user came: what was made from the old state is forgotten; the list stays, the last rung may need it."""
        self.pools.drop(user_id)

    def bundle_changed(self, digest: str) -> None:
        """Rows mean other items now."""
        if digest != self.digest:
            self.digest = digest
            self.pools.clear()
            self.lists.clear()

    def counters(self) -> dict[str, dict[str, int]]:
        """{"pools": {"hits", "misses", "evictions", "entries"}, "lists": …}."""
        named: dict[str, TtlCache[Any]] = {"pools": self.pools, "lists": self.lists}
        return {
            name: {"hits": cache.hits, "misses": cache.misses, "evictions": cache.evictions, "entries": len(cache)}
            for name, cache in named.items()
        }

    def version(self, query: Query) -> Hashable:
        """What a pool of this query depends on beside the moment."""
        request, state = query.request, query.state
        had, looked = float(_total(state.counts)), float(_total(state.session_days))  # a late event changes no length and no latest day
        day = state.updated_day if state.updated_day == state.updated_day else None  # a day that is not known is equal to itself
        history = (day, len(state.keys), len(state.session_keys), state.schema_key, had, looked)
        return (self.digest, len(query.catalogue), request.place, request.region, request.discover, request.k, *history)
