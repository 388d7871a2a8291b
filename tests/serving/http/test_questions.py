"""The questions beside the usual list, over HTTP: what is answered, what is refused and how, and what a session without a user is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.worker.options import Options
from tests.serving.servers import in_process, tiny_options

AT = "2024-10-04T12:00:00Z"


async def ask(client: httpx.AsyncClient, route: str, **asked: Any) -> dict[str, Any]:
    reply = await client.post(f"/v1/{route}", json=asked)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "event_type": "click", "item_id": "i100", "timestamp": AT, **more}


async def test_similar_and_popular_answer_in_the_form_of_a_list(client: httpx.AsyncClient) -> None:
    usual = await ask(client, "recommendations", user_id="u01")
    for answer in (await ask(client, "similar", item_id="i030"), await ask(client, "popular", context={"region": "west"})):
        assert answer.keys() == usual.keys()
        assert answer["items"][0].keys() == usual["items"][0].keys()
        assert len(answer["items"]) == 10
        assert answer["degraded"] is None
        why = await client.get(f"/v1/why/{answer['request_id']}")
        assert [item["item_id"] for item in why.json()["items"]] == ids(answer)


@pytest.mark.parametrize(
    ("route", "asked", "status", "code", "field"),
    [
        ("similar", {}, 422, "missing_field", "item_id"),
        ("similar", {"item_id": "nothing"}, 404, "unknown_item", "item_id"),
        ("similar", {"item_id": "i001", "k": 0}, 422, "bad_value", "k"),
        ("similar", {"item_id": "i001", "like": 1}, 422, "unknown_field", "like"),
        ("popular", {"only": {"category": ["D > C99"]}}, 422, "unknown_value", "only.category"),
        ("popular", {"only": {"brand": ["brand 77"]}}, 422, "unknown_value", "only.brand"),
        ("popular", {"only": {"colour": ["red"]}}, 422, "unknown_field", "only.colour"),
        ("popular", {"leave_out": [""]}, 422, "bad_value", "leave_out[0]"),
        ("recommendations", {"user_id": "u01", "only": {"price_from": -1}}, 422, "bad_value", "only.price_from"),
        ("recommendations", {"user_id": "u01", "only": {"newer_than_days": 0}}, 422, "bad_value", "only.newer_than_days"),
        ("recommendations", {"user_id": "u01", "leave_out": [f"i{n}" for n in range(1001)]}, 422, "bad_value", "leave_out"),
        ("recommendations", {"k": 3}, 422, "missing_field", "user_id"),
        ("recommendations", {"session_id": ""}, 422, "bad_value", "session_id"),
        ("recommendations", {"user_id": "\x1fs1"}, 422, "bad_value", "user_id"),
        ("events", event(1), 422, "missing_field", "user_id"),
        ("events", {"event_id": "e", "event_type": "click", "user_id": "u", "timestamp": AT}, 422, "missing_field", "item_id"),
        ("events", {"event_id": "e", "event_type": "click", "user_id": "u", "item_id": "i"}, 422, "missing_field", "timestamp"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(
    client: httpx.AsyncClient, route: str, asked: dict[str, Any], status: int, code: str, field: str
) -> None:
    reply = await client.post(f"/v1/{route}", json=asked)
    assert reply.status_code == status, reply.text
    assert (reply.json()["error"]["code"], reply.json()["error"]["field"]) == (code, field)


async def test_a_restricted_list_holds_only_what_was_asked_for(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "recommendations", user_id="u01", k=40, only={"category": ["D > C1"], "price_to": 2.0}, leave_out=["i013"])
    assert set(ids(answer)) == {f"i{n:03}" for n in range(1, 101, 12)} - {"i013"}
    assert ids(await ask(client, "recommendations", user_id="u01", only={"items": ["unknown"]})) == []


async def test_a_session_without_a_user_has_a_list_that_its_events_change(client: httpx.AsyncClient) -> None:
    nobody = await ask(client, "recommendations", session_id="s1")
    assert len(ids(nobody)) == 10
    reply = await client.post("/v1/events", json=event(1, session_id="s1", event_type="purchase"))
    assert reply.json()["accepted"] == 1
    bought = await ask(client, "recommendations", session_id="s1")
    assert "i100" in ids(bought)
    assert {"i101", "i102"} & set(ids(bought))  # what is had with it
    assert ids(await ask(client, "recommendations", session_id="s2")) == ids(nobody)
    assert ids(await ask(client, "recommendations", user_id="s1")) == ids(nobody)  # a user of the same name is somebody else
    why = (await client.get(f"/v1/why/{bought['request_id']}")).json()
    assert (why["user_id"], why["session_id"]) == (None, "s1")


async def test_beside_a_user_a_session_is_only_told(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json=event(1, session_id="s1", event_type="purchase"))
    await client.post("/v1/events", json=event(2, session_id="s1", user_id="u02", event_type="purchase", item_id="i150"))
    assert "i100" not in ids(await ask(client, "recommendations", user_id="u01", session_id="s1"))
    assert "i150" in ids(await ask(client, "recommendations", user_id="u02"))
    assert "i150" not in ids(await ask(client, "recommendations", session_id="s1"))


async def test_what_a_session_hid_is_in_none_of_its_lists(client: httpx.AsyncClient) -> None:
    hidden = "i031"
    assert hidden in ids(await ask(client, "similar", item_id="i030", session_id="s1"))
    await client.post("/v1/events", json=event(1, session_id="s1", event_type="hide", item_id=hidden))
    assert hidden not in ids(await ask(client, "similar", item_id="i030", session_id="s1"))
    assert hidden not in ids(await ask(client, "popular", k=200, session_id="s1"))
    assert hidden in ids(await ask(client, "popular", k=200))


async def test_a_recalled_item_is_in_none_of_them(client: httpx.AsyncClient) -> None:
    await client.post("/v1/safety", json={"messages": [{"item_id": "i031", "action": "recall"}]})
    assert "i031" not in ids(await ask(client, "similar", item_id="i030", k=240))
    assert "i031" not in ids(await ask(client, "popular", k=240))
    assert "i031" not in ids(await ask(client, "recommendations", user_id="u01", only={"items": ["i031", "i032"]}))
    assert len(ids(await ask(client, "similar", item_id="i031"))) == 10  # its page shows others


def counted_as(folder: Path, **rates: str) -> Options:
    """A server with one key, "k", and these rates."""
    key = {"name": "web", "sha256": hashlib.sha256(b"k").hexdigest(), "scopes": ["recommend"], "rate": rates.get("rate")}
    (folder / "keys.json").write_text(json.dumps({"keys": [key], "user_rate": rates.get("user_rate")}))
    return tiny_options(folder, keys=folder / "keys.json")


async def statuses(options: Options, *asked: tuple[str, dict[str, Any]]) -> list[int]:
    parts = in_process(options)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door", headers={"x-api-key": "k"}) as client:
        found = [(await client.post(f"/v1/{route}", json=body)).status_code for route, body in asked]
    for close in parts.closers:
        close()
    return found


async def test_they_cost_what_lists_cost(tmp_path: Path) -> None:
    long = {"item_id": "i001", "k": 1000}  # 5 at once
    assert await statuses(counted_as(tmp_path, rate="5/minute"), ("similar", long), ("popular", {})) == [200, 429]


async def test_a_session_is_counted_like_a_user(tmp_path: Path) -> None:
    session = ("recommendations", {"session_id": "s"})
    other, nobody = ("recommendations", {"session_id": "other"}), ("popular", {})
    assert await statuses(counted_as(tmp_path, user_rate="2/minute"), *[session] * 3, other, nobody) == [200, 200, 429, 200, 200]
