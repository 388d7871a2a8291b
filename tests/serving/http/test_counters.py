"""Counting by cost in a sliding window: against an obvious reference, over processes, and without the Redis that should count."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from limits import parse

from serving.http.counters import Counters, RedisCounters
from tests.serving.servers import free_port, until


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.floats(0, 40)), max_size=60))
def test_what_fits_is_what_the_weighted_windows_leave(asked: list[tuple[str, int, float]]) -> None:
    rate, counters = parse("6/10second"), Counters()
    now, taken = 1000.0, {}
    for name, cost, passed in asked:
        now += passed
        window, into = int(now // 10), now % 10 / 10
        before, counted = (taken.get((name, place), 0) for place in (window - 1, window))
        fits = before * (1 - into) + counted + cost <= 6
        taken[name, window] = counted + cost * fits
        assert counters.take(rate, name, cost, now) is fits


def test_names_without_number_do_not_fill_it_up_for_ever() -> None:
    rate, counters = parse("1/second"), Counters()
    assert all(counters.take(rate, f"user{number}", 1, 10.0 + number / 1000) for number in range(200_000))


def test_two_maps_of_one_file_count_together(tmp_path: Path) -> None:
    rate, first, second = parse("3/hour"), Counters(tmp_path / "rates"), Counters(tmp_path / "rates")
    assert [one.take(rate, "web", 1, 50.0) for one in (first, second, first, second)] == [True, True, True, False]


async def test_a_redis_that_hangs_or_is_gone_costs_a_moment_once_and_this_machine_counts_on() -> None:
    port, alone = free_port(), []
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    counters, rate = RedisCounters(f"redis://127.0.0.1:{port}/0", Counters(), lambda: alone.append(1)), parse("5/hour")
    try:
        await asyncio.to_thread(until, lambda: _up(port), 10)
        await counters.take(rate, "web", 1)
        redis.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert [await counters.take(rate, "web", 1) for _ in range(6)] == [True] * 5 + [False]  # fails open, for one rate's worth
        assert time.monotonic() - began < 2.0
        assert len(alone) >= 6
        redis.send_signal(signal.SIGCONT)
        redis.kill()
        redis.wait(10)
        assert not await counters.take(rate, "web", 1)
        assert await counters.take(rate, "another", 1)
        await counters.close()
    finally:
        redis.send_signal(signal.SIGCONT)
        redis.kill()
        redis.wait(10)


def _up(port: int) -> bool:
    return subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, check=False).stdout == b"PONG\n"
