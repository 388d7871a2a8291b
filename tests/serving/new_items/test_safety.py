"""Safety messages hold at once, everywhere and for good, and end by name alone."""

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.new_items.safety import Safety, Said, merged
from serving.worker.assemble import Parts
from tests.serving.servers import in_process, tiny_options

SAID = st.lists(
    st.builds(Said, st.sampled_from("ab"), st.sampled_from(["recall", "block"]), st.booleans(), st.integers(0, 3).map(float)), max_size=8
)


@given(SAID, st.randoms())
def test_copies_of_the_book_agree_in_whatever_order_they_meet(messages: list[Said], order: random.Random) -> None:
    shuffled = messages.copy()
    order.shuffle(shuffled)
    assert merged(messages) == merged(shuffled) == merged(merged(messages[:3]).values(), messages[3:], messages)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Parts, Parts]]:
    """Two workers of one machine."""
    options = tiny_options(tmp_path)
    made = in_process(options), in_process(options)
    yield made
    for parts in made:
        for close in parts.closers:
            close()


async def listed(parts: Parts) -> list[str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
        reply = await client.post("/v1/recommendations", json={"user_id": "u01", "k": 240})
        return [item["item_id"] for item in reply.json()["items"]]


@pytest.mark.parametrize("action", ["recall", "block", "hide"])
async def test_a_message_holds_in_the_next_answer_of_another_worker_until_it_is_lifted(two: tuple[Parts, Parts], action: str) -> None:
    first, second = two
    (item, *_) = await listed(second)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(first.app), base_url="http://door") as client:
        told = await client.post(
            "/v1/safety", json={"messages": [{"item_id": item, "action": action}, {"item_id": "none", "action": action}]}
        )
        assert told.json() == {"taken": 2, "unknown_items": 1}
        assert item not in await listed(second)
        assert item not in await listed(first)
        other = "block" if action != "block" else "hide"
        await client.post("/v1/safety", json={"messages": [{"item_id": item, "action": other, "lift": True}]})
        assert item not in await listed(second)  # it was not that name
        await client.post("/v1/safety", json={"messages": [{"item_id": item, "action": action, "lift": True}]})
        assert item in await listed(second)


def test_a_redis_that_comes_back_empty_is_told_again_and_one_that_is_down_stops_no_recall(tmp_path: Path, redis_url: str) -> None:
    import redis

    said = Said("i001", "recall", True, 1.0)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        here = Safety(tmp_path / "here", redis_url)
        here.say([said])
        here.share()
        for place in ("elsewhere", "third"):
            other = Safety(tmp_path / place, redis_url)
            other.share()
            assert other.book() == {("i001", "recall"): said}
            client.flushdb()
            here.share()
    down = Safety(tmp_path / "here", "redis://127.0.0.1:1/0")
    down.say([Said("i002", "block", True, 2.0)])
    down.share()
    assert not down.is_news() or down.book()  # what is heard of this machine's file does not wait for Redis
    assert not down.is_news()
    assert set(down.book()) == {("i001", "recall"), ("i002", "block")}


def test_what_is_said_last_holds_whatever_the_clock_that_said_the_first(tmp_path: Path) -> None:
    safety = Safety(tmp_path)
    safety.say([Said("i001", "recall", True, 400.0)])  # a server whose clock was ahead
    safety.say([Said("i001", "recall", False, 5.0)])
    assert [one.on for one in safety.book().values()] == [False]
    safety.say([Said("i001", "recall", on, 5.0) for on in (True, False, True, False)])
    assert [one.on for one in safety.book().values()] == [False]


def test_what_somebody_else_wrote_into_the_shared_hash_stops_no_message(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    import redis

    wrong = {
        "recall:i1": "maybe",
        b"recall:\xff": "1:1.0",
        "melt:i2": "1:1.0",
        "recall:i3": "1:nan",
        "nothing": "1:1.0",
        "recall:i4": b"\xff:1",
    }
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        client.hset("shortlist:safety", mapping={"recall:i5": "1:7.0", **wrong})
        here = Safety(tmp_path, redis_url)
        here.say([Said("i6", "block", True, 8.0)])
        here.share()
        assert set(here.book()) == {("i5", "recall"), ("i6", "block")}
        assert client.hget("shortlist:safety", "block:i6") == b"1:8.0"
    assert len(caplog.messages) == len(wrong)
