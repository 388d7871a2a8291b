"""What the events' way in says of each event, and what lists are made of while the states cannot be had."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.worker.assemble import Parts
from tests.serving.servers import in_process, tiny_options

NOON = "2024-10-04T12:00:00Z"
EVENT = {"event_id": "e1", "event_type": "purchase", "user_id": "u01", "item_id": "i100", "timestamp": NOON}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(opened(tmp_path).app), base_url="http://door") as made:
        yield made
    for parts in PARTS:
        for close in parts.closers:
            close()
    PARTS.clear()


PARTS: list[Parts] = []


def opened(folder: Path, **changes: Any) -> Parts:
    PARTS.append(in_process(tiny_options(folder, **changes)))
    return PARTS[-1]


async def told(client: httpx.AsyncClient, *events: dict[str, Any]) -> dict[str, Any]:
    reply = await client.post("/v1/events", json={"events": events})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def listed(client: httpx.AsyncClient, user: str = "u01", **more: Any) -> tuple[list[str], Any]:
    reply = await client.post("/v1/recommendations", json={"user_id": user, **more})
    assert reply.status_code == 200, reply.text
    return [item["item_id"] for item in reply.json()["items"]], reply.json()["degraded"]


async def whole(client: httpx.AsyncClient, user: str = "u01") -> tuple[list[str], Any]:
    """A list of the full rung: one that came too late, because the machine was busy, is asked for again."""
    for _ in range(20):
        found = await listed(client, user)
        if found[1] is None:
            break
    return found


async def test_an_id_used_again_with_another_body_is_refused_and_changes_no_list(client: httpx.AsyncClient) -> None:
    assert (await told(client, EVENT))["accepted"] == 1
    before = await whole(client, "u02")
    taken = await client.post("/v1/events", json=EVENT | {"user_id": "u02"})
    assert taken.status_code == 409
    assert (taken.json()["error"]["code"], taken.json()["error"]["field"]) == ("event_id_taken", "event_id")
    assert "'e1'" in taken.json()["error"]["message"]
    reply = await told(client, EVENT, EVENT | {"user_id": "u02"}, EVENT | {"event_id": "e2", "user_id": "u03"})
    assert (reply["accepted"], reply["duplicates"]) == (1, 1)
    assert [(one["index"], one["code"]) for one in reply["refused"]] == [(1, "event_id_taken")]
    assert await whole(client, "u02") == before


@pytest.mark.parametrize("moment", ["2024-10-02T12:00:00Z", "0001-01-01T00:00:00Z"])
async def test_what_happened_before_the_tables_is_kept_and_counted_apart(client: httpx.AsyncClient, moment: str) -> None:
    before = await whole(client)
    reply = await told(client, EVENT | {"timestamp": moment})
    assert (reply["accepted"], reply["without_effect"]) == (1, 1)
    assert await whole(client) == before


async def test_what_happens_in_a_year_to_come_is_refused_and_items_nobody_knows_are_counted(client: httpx.AsyncClient) -> None:
    reply = await told(client, EVENT | {"timestamp": "2400-01-01T00:00:00Z"}, EVENT | {"event_id": "e2", "item_id": "no such item"})
    assert [(one["index"], one["field"]) for one in reply["refused"]] == [(0, "timestamp")]
    assert (reply["accepted"], reply["without_effect"], reply["unknown_items"]) == (1, 0, 1)


@pytest.mark.parametrize("field", ["event_id", "user_id", "item_id"])
@pytest.mark.parametrize("value", ["a\x00", "x" * 300, "x" * 20_000, "", "a\nb"], ids=["zero", "300", "20000", "empty", "line"])
async def test_an_id_that_the_tables_could_not_hold_is_refused_with_its_field(client: httpx.AsyncClient, field: str, value: str) -> None:
    reply = await told(client, EVENT | {field: value})
    assert (reply["accepted"], reply["refused"][0]["field"]) == (0, field)
    assert (await client.post("/v1/recommendations", json={"user_id": value})).status_code == 422
    item = await client.post("/v1/items", json={"items": [{"item_id": value}]})
    assert item.status_code == 422


async def test_a_text_with_a_zero_byte_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/items", json={"items": [{"item_id": "new", "title": "A\x00B"}]})).status_code == 422
    reply = await told(client, EVENT | {"context": {"query": "milk\x00"}})
    assert reply["refused"][0]["field"] == "context.query"


async def test_a_hidden_item_is_in_no_list_of_that_user_until_it_is_shown_again(client: httpx.AsyncClient) -> None:
    before, _ = await listed(client)
    others, _ = await listed(client, "u02", k=240)
    hide = {"event_id": "h1", "event_type": "hide", "user_id": "u01", "item_id": before[0], "timestamp": NOON}
    await told(client, hide)
    after, degraded = await listed(client, k=240)
    assert (before[0] in after, len(after), degraded) == (False, 236, None)
    assert before[0] in others
    assert (await listed(client, "u02", k=240))[0] == others
    await told(client, hide | {"event_id": "h2", "event_type": "unhide", "timestamp": "2024-10-04T12:00:01Z"})
    assert before[0] in (await listed(client, k=240))[0]


async def test_while_the_store_is_locked_lists_know_what_this_worker_took(client: httpx.AsyncClient, tmp_path: Path) -> None:
    await told(client, EVENT | {"event_id": "first", "item_id": "i150"})
    (first, *_), _ = await listed(client)
    with closing(sqlite3.connect(tmp_path / "events" / "states.sqlite", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        await told(client, EVENT | {"event_type": "hide", "item_id": first})
        items, degraded = await listed(client)
        assert first not in items
        assert "1 acknowledged events wait" in degraded["reason"]
        assert (await client.get("/metrics")).text.count('shortlist_events_behind{bundle="') == 1
        lock.execute("ROLLBACK")
