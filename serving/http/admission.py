"""One engine call at a time a worker, the socket read in between; who would wait too long is answered at once from a lower rung."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
_SHARE = 0.5  # of a request's budget that may be spent waiting
_SMOOTH = 0.05  # weight of the newest call in the running mean
_LANES = 3  # calls at a time that wait for other servers: as many as keep both halves and the front busy


class EngineQueue:
    """Whose turn it is. An engine call is some 2 ms of pure CPU, so calls queue; the queue is bounded by time, not by luck.

    Between two calls the event loop runs once, so that requests are stamped as they arrive and not when the burst before them is done. A
    request that was read after the last call ended shows that it has run; only one that was read before waits for it.
    """

    lanes = 1

    def __init__(
        self, budget_ms: float, on_shed: Callable[[], None] = lambda: None, on_wait: Callable[[float], None] = lambda _: None
    ) -> None:
        self._budget_ms, self._on_shed, self._on_wait = budget_ms, on_shed, on_wait
        self._running, self._ended = 0, float("-inf")  # calls under way; when the last one ended
        self._queue: deque[asyncio.Future[None]] = deque()
        self._mean_ms = 1.0  # of a call

    async def run(self, arrived: float, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        """`await call(*args, waited_ms)` in turn. Sheds by telling it that its whole budget is gone. `arrived`: perf_counter seconds."""
        if len(self._queue) * self._mean_ms > _SHARE * self._budget_ms * self.lanes:
            self._on_shed()
            return await call(*args, self._budget_ms)
        if self._running >= self.lanes or self._queue:
            await self._wait()
        else:
            self._running += 1
            if arrived <= self._ended:
                asyncio.get_running_loop().call_soon(self._next)
                await self._wait()
        began = perf_counter()
        try:
            self._on_wait(began - arrived)
            answer = await call(*args, (began - arrived) * 1e3)
            self._mean_ms += _SMOOTH * ((perf_counter() - began) * 1e3 - self._mean_ms)
            return answer
        finally:
            self._ended = perf_counter()
            if self._queue:
                asyncio.get_running_loop().call_soon(self._next)  # not at once: the sockets are read first
            else:
                self._running -= 1

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()  # it had been given to this one already
            raise

    def _next(self) -> None:
        """Give the turn to who has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1


class EngineLanes(EngineQueue):
    """The same for calls that mostly wait for other servers: a few at a time."""

    lanes = _LANES
