"""A breaker opens after failures in a row, probes once after a pause, and closes on the first success."""

import pytest

from serving.resilience.breaker import Breaker, Unavailable


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def broken() -> None:
    raise OSError("no route")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> Breaker:
    breaker = Breaker("redis", clock, failures=3, pause_seconds=2)
    for _ in range(3):
        with pytest.raises(Unavailable, match="redis: OSError: no route"):
            breaker.call(broken)
    return breaker


def test_an_open_circuit_does_not_ask(clock: Clock) -> None:
    breaker, asked = opened(clock), []
    assert breaker.state == "open"
    with pytest.raises(Unavailable, match="not asked, it failed lately"):
        breaker.call(lambda: asked.append(1))
    assert asked == []


def test_after_the_pause_a_success_closes_it(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now = 2.0
    assert breaker.state == "half-open"
    assert breaker.call(lambda: 7) == 7
    assert breaker.state == "closed"


def test_a_failed_probe_opens_it_again_for_the_whole_pause(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now = 2.5
    with pytest.raises(Unavailable):
        breaker.call(broken)
    clock.now = 4.4
    assert breaker.state == "open"
    clock.now = 4.5
    assert breaker.call(lambda: 1) == 1


def test_only_one_call_probes_at_a_time(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now = 3.0

    def probe() -> str:
        with pytest.raises(Unavailable, match="not asked"):
            breaker.call(lambda: "second")
        return "first"

    assert breaker.call(probe) == "first"


def test_single_failures_between_successes_never_open_it(clock: Clock) -> None:
    breaker = Breaker("redis", clock, failures=2)
    for _ in range(10):
        with pytest.raises(Unavailable):
            breaker.call(broken)
        assert breaker.call(lambda: 1) == 1
    assert breaker.state == "closed"
