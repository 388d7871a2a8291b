"""Turns: one call at a time, in order of arrival, and never a queue longer than the time there is."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from serving.http.admission import EngineLanes, EngineQueue


def busy(seconds: float) -> None:
    ends = perf_counter() + seconds
    while perf_counter() < ends:
        pass


def soon(function: Callable[[float], Any]) -> Callable[[float], Awaitable[Any]]:
    """The function as a call that could wait."""

    async def call(waited_ms: float) -> Any:
        return function(waited_ms)

    return call


async def test_calls_run_one_at_a_time_in_the_order_they_came() -> None:
    turn, order = EngineQueue(1_000), []
    await asyncio.gather(*(turn.run(perf_counter(), soon(lambda _, n=n: order.append(n))) for n in range(20)))
    assert order == list(range(20))


async def test_the_loop_runs_between_two_calls() -> None:
    turn, between = EngineQueue(1_000), 0

    async def other() -> None:
        nonlocal between
        for _ in range(10):
            between += 1
            await asyncio.sleep(0)

    seen: list[int] = []
    waiting = asyncio.create_task(other())
    await asyncio.gather(*(turn.run(perf_counter(), soon(lambda _: seen.append(between))) for _ in range(5)))
    await waiting
    assert len(set(seen)) > 1


async def test_a_call_is_told_how_long_it_waited() -> None:
    assert await EngineQueue(1_000).run(perf_counter() - 0.05, soon(lambda waited_ms: waited_ms)) >= 50


async def test_who_would_wait_more_than_half_the_budget_is_answered_at_once_without_one() -> None:
    shed: list[bool] = []
    turn = EngineQueue(100, lambda: shed.append(True))

    def call(waited_ms: float) -> float:
        busy(0.01 if waited_ms < 100 else 0)  # with no budget left a lower rung answers, in no time
        return waited_ms

    waits = await asyncio.gather(*(turn.run(perf_counter(), soon(call)) for _ in range(200)))
    assert len(waits) == 200
    assert shed
    assert sum(waited == 100 for waited in waits) == len(shed)


async def test_a_call_that_fails_gives_its_turn_back() -> None:
    turn = EngineQueue(100)

    def fail(_: float) -> None:
        raise ValueError("as asked")

    for result in await asyncio.gather(*(turn.run(perf_counter(), soon(fail)) for _ in range(3)), return_exceptions=True):
        assert isinstance(result, ValueError)
    assert await turn.run(perf_counter(), soon(lambda _: 7)) == 7


async def test_lanes_wait_side_by_side() -> None:
    together, lanes = asyncio.Barrier(3), EngineLanes(10_000)
    async with asyncio.timeout(10):
        assert sorted(await asyncio.gather(*(lanes.run(perf_counter(), lambda _: together.wait()) for _ in range(3)))) == [0, 1, 2]
