"""What may be used again for an hour: candidate pools, request sides and lists of a user, until an event or another bundle ends it.

`TtlCache` is kept, and not cachetools': under the lock, with versions and counts around it, `TTLCache` took 12 lines more, and 20 us of CPU
for a get, a put and a get where this takes 5.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from serving.bundle.arrays import Rows
from serving.query import Candidates, Query
from serving.ranking.rankers import UserSide
from serving.state.user_state import UserState

V = TypeVar("V")
TTL_SECONDS = 3600.0


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

    def get(self, key: Hashable, version: Hashable = None, usable: Callable[[V], bool] = lambda _: True) -> V | None:
        """The value, unless it is too old, was made for another version or is not `usable`."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[1] != version or not 0 <= self._clock() - entry[0] < self._ttl or not usable(entry[2]):
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


class Pooled(NamedTuple):
    """A pool with the side it was made from, the state that was made from, and the moment."""

    pool: Candidates
    side: UserSide
    state: UserState
    day: float


class Caches:
    """The caches of one worker for one bundle. A pool counts as the same while the user's state and the asked context are."""

    def __init__(
        self, digest: str, clock: Callable[[], float], users: int = 2_000, lists: int = 50_000, ttl_seconds: float = TTL_SECONDS
    ) -> None:
        self.digest = digest
        self.pools: TtlCache[Pooled] = TtlCache(users, clock, ttl_seconds)  # about 60 KB each
        self.batch = {"hits": 0, "misses": 0}  # of a hybrid system: users with and without a list from the last batch
        self.lists: TtlCache[Rows] = TtlCache(lists, clock, 24 * ttl_seconds)  # 0.8 KB each; the rung below the rankers

    def pool(self, query: Query) -> Pooled | None:
        """The user's pool, where it was made for the same question from the same state."""
        return self.pools.get(query.request.user_id, self._version(query), lambda kept: kept.state.same_as(query.state))

    def batch_asked(self, found: bool) -> None:
        """A hybrid system looked for the user's batch list: the hit rate of its pools."""
        self.batch["hits" if found else "misses"] += 1

    def keep_pool(self, query: Query, pool: Candidates, side: UserSide) -> None:
        self.pools.put(query.request.user_id, Pooled(pool, side, query.state, query.request.at_day), self._version(query))

    def user_changed(self, user_id: str) -> None:
        """An event of the user came: what was made from the old state is forgotten; the list stays, the last rung may need it."""
        self.pools.drop(user_id)

    def counters(self) -> dict[str, dict[str, int]]:
        """{"pools": {"hits", "misses", "evictions", "entries"}, "lists": …, "batch": {"hits", "misses"}}."""
        named: dict[str, TtlCache[Any]] = {"pools": self.pools, "lists": self.lists}
        kept = {
            name: {"hits": cache.hits, "misses": cache.misses, "evictions": cache.evictions, "entries": len(cache)}
            for name, cache in named.items()
        }
        return {**kept, "batch": dict(self.batch)}

    def _version(self, query: Query) -> Hashable:
        request = query.request
        return (self.digest, len(query.catalogue), request.place, request.region, request.discover, request.k)
