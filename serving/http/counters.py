"""How often somebody has asked lately: counted by cost in a sliding window, over all workers, without ever keeping a request waiting.

`Counters` are numbers in memory that the workers of a machine share, `RedisCounters` those of many machines. A Redis that is down or
slow is not waited for: this machine's numbers go on, and a metric says so.
"""

import asyncio
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from limits import RateLimitItem
from redis import RedisError

_SLOT = struct.Struct("<Qdqdd")  # name, when it means nothing any more, window, cost in the window before, cost in this one
_SLOTS = 1 << 16
_NEAR = 8  # slots a name may be in
_TRIES = 50  # at the lock, some microseconds each
_ANSWER_SECONDS = 0.05  # Redis is given this long
_AGAIN_SECONDS, _LONGEST_SECONDS = 1.0, 30.0  # until it is asked again, doubling


class Counters:
    """Counts in `_SLOTS` places of a file that several processes map, or of this process's own memory. When it is full the oldest go."""

    def __init__(self, shared: Path | None = None) -> None:
        size = _SLOT.size * _SLOTS
        self._file: int | None = None
        if shared is None:
            self._memory = mmap.mmap(-1, size)
        else:
            self._file = os.open(shared, os.O_RDWR | os.O_CREAT, 0o600)  # kept as long as the process
            os.posix_fallocate(self._file, 0, size)  # all of it: a write into a map that a full disk cannot hold ends the process
            self._memory = mmap.mmap(self._file, size)

    def take(self, rate: RateLimitItem, name: str, cost: int, now: float | None = None) -> bool:
        """Count `cost` unless that exceeds the rate; did it fit? `now`: seconds of the system's monotonic clock."""
        now = time.monotonic() if now is None else now
        seconds = rate.get_expiry()
        key = int.from_bytes(blake2b(f"{rate}/{name}".encode(), digest_size=8).digest(), "little") or 1
        window, into = int(now // seconds), now % seconds / seconds
        with self._alone():
            at = self._place(key, now)
            known, _, then, before, counted = _SLOT.unpack_from(self._memory, at)
            if known != key or then < window - 1:
                before = counted = 0.0
            elif then == window - 1:
                before, counted = counted, 0.0
            fits = bool(before * (1.0 - into) + counted + cost <= rate.amount)
            _SLOT.pack_into(self._memory, at, key, (window + 2.0) * seconds, window, before, counted + cost * fits)
        return fits

    def _place(self, key: int, now: float) -> int:
        """Where the name is, or may be put: an unused slot, else the one that is forgotten first."""
        oldest, best = float("inf"), 0
        for step in range(_NEAR):
            at = (key + step) % _SLOTS * _SLOT.size
            known, until = struct.unpack_from("<Qd", self._memory, at)
            if known == key:
                return at
            if until < oldest:
                oldest, best = until, at
        return best

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock, unless another process keeps it: then a count may be lost, which is better than to wait."""
        if self._file is None:
            yield
            return
        held = False
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            held = True
            break
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


class RedisCounters:
    """Counts in Redis, with `local` ones in their place while it does not answer; `on_local` is called for each of those."""

    def __init__(self, url: str, local: Counters, on_local: Callable[[], None]) -> None:
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from redis.asyncio import ConnectionPool

        self._pool = ConnectionPool.from_url(url.removeprefix("redis+"), socket_timeout=1.0, socket_connect_timeout=1.0)
        pool: Any = self._pool  # which the storage takes, whatever its annotation says
        storage = RedisStorage(url, connection_pool=pool, implementation="redispy")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._local, self._on_local = local, on_local
        self._ask_at, self._pause = 0.0, 0.0  # not before, by the loop's clock; how long it was given up for

    async def close(self) -> None:
        await self._pool.aclose()

    async def take(self, rate: RateLimitItem, name: str, cost: int) -> bool:
        """Count `cost` unless that exceeds the rate; did it fit?"""
        now = asyncio.get_running_loop().time()
        if now >= self._ask_at:
            if self._pause:  # it was down: one request tries, the others go on without
                self._ask_at = now + self._pause
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    fits = await self._limiter.hit(rate, name, cost=cost)
            except (TimeoutError, OSError, RedisError):
                self._pause = min(max(2 * self._pause, _AGAIN_SECONDS), _LONGEST_SECONDS)
                self._ask_at = now + self._pause
            else:
                self._pause = self._ask_at = 0.0
                return fits
        self._on_local()
        return self._local.take(rate, name, cost)
