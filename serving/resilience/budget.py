"""Is there time? What is left of a request's budget, and what each stage usually takes of it.

A stage begins only while the time left covers what it (and the rules after it) lately took; a stage elsewhere is asked through its breaker.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from serving.resilience.breaker import Breaker, Unavailable

T = TypeVar("T")
_CAUTION = 1.5  # a stage is expected to take this much of its moving average
_MEMORY = 0.2  # weight of the newest measurement


class Countdown:
    """One request's time, by the stages' clock."""

    __slots__ = ("ends_at", "now", "stage_ms")

    def __init__(self, began: float, left_seconds: float) -> None:
        self.now, self.ends_at = began, began + left_seconds  # when the last stage ended, when the budget does
        self.stage_ms: dict[str, float] = {}

    @property
    def left_ms(self) -> float:
        return (self.ends_at - self.now) * 1e3


class Stages:
    """Runs the stages of one process's requests, measures each and refuses those that would end too late.

    `elsewhere`: names of the stages that other processes run; a stage of this process has no breaker, since one user's broken state must
    not cost the others their rung.
    """

    def __init__(self, elsewhere: tuple[str, ...], clock: Callable[[], float]) -> None:
        self._clock = clock
        self.breakers: Mapping[str, Breaker] = {name: Breaker(name, clock) for name in elsewhere}
        self.expected_ms: dict[str, float] = {}  # moving average of each stage

    def run(self, time: Countdown, name: str, function: Callable[..., T], *args: Any) -> T:
        """A stage of this process. Raises `Unavailable` when there is no time for it, or it fails."""
        began = self._begun(time, name)
        try:
            result = function(*args)
        except Exception as error:
            time.now = self._clock()
            raise Unavailable(f"{name}: {type(error).__name__}: {error}") from error
        self.measured(time, name, began)
        return result

    async def ask(self, time: Countdown, name: str, function: Callable[..., Awaitable[T] | T], *args: Any) -> T:
        """The same of a stage elsewhere, through its breaker."""
        began = self._begun(time, name)
        try:
            result = await self.breakers[name].awaited(function, *args)
        except Unavailable:
            time.now = self._clock()
            raise
        self.measured(time, name, began)
        return result

    def _begun(self, time: Countdown, name: str) -> float:
        """When the stage begins, which is when the one before it ended. Raises `Unavailable` when it would not end in time."""
        usual = self.expected_ms.get(name, 0.0)
        needed_ms = _CAUTION * (usual + self.expected_ms.get("arrange", 0.0))
        if time.left_ms <= needed_ms:
            self.expected_ms[name] = usual * (1 - _MEMORY)  # so that it is tried again
            raise Unavailable(f"{name}: {max(time.left_ms, 0):.1f} ms left, it takes about {needed_ms:.1f}")
        return time.now

    def measured(self, time: Countdown, name: str, began: float) -> None:
        """A stage that began at `began` has ended."""
        time.now = self._clock()
        time.stage_ms[name] = milliseconds = (time.now - began) * 1e3
        before = self.expected_ms.get(name, 0.0)  # from nothing: one cold start is no reason to skip a stage
        self.expected_ms[name] = before + _MEMORY * (milliseconds - before)


def timeout_seconds(time: Countdown, stage_ms: float, after_ms: float) -> float:
    """Seconds a stage elsewhere may take: its budget, and no more than is left before what comes after it."""
    return max(min(stage_ms, time.left_ms - after_ms), 1.0) / 1e3
