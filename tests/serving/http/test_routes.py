"""The door over the tiny bundle, in this process: what is asked, what is answered, and what is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.http.routes import Api
from tests.serving.servers import in_process, tiny_options
from tests.serving.tiny_bundle import DAY

AT = "2024-10-04T12:00:00Z"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Api]:
    parts = in_process(tiny_options(tmp_path))
    assert isinstance(parts.app, Api)
    yield parts.app
    for close in parts.closers:
        close()


@pytest.fixture
async def client(door: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door") as made:
        yield made


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "event_type": "click", "user_id": "u01", "item_id": "i100", "timestamp": AT, **more}


async def ask(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    reply = await client.post("/v1/recommendations", json={"user_id": "u01", **asked})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_list_comes_with_its_bundle_and_a_reason_for_each_item(door: Api, client: httpx.AsyncClient) -> None:
    answer = await ask(client)
    assert len(answer["items"]) == 10  # the system's own size
    assert answer["bundle"] == door.digest
    assert answer["degraded"] is None
    assert {"i001", "i013", "i025"} & {item["item_id"] for item in answer["items"]}  # what this user buys
    assert all(item["reason"] and item["sources"] for item in answer["items"])


async def test_k_sets_the_length_and_every_request_has_its_own_id(client: httpx.AsyncClient) -> None:
    answers = [await ask(client, k=k) for k in (1, 7, 60)]
    assert [len(answer["items"]) for answer in answers] == [1, 7, 60]
    assert len({answer["request_id"] for answer in answers}) == 3


async def test_a_purchase_changes_the_very_next_answer(client: httpx.AsyncClient) -> None:
    before = await ask(client)
    reply = await client.post("/v1/events", json=event(1, event_type="purchase", item_id="i100"))
    assert reply.json() == {
        "accepted": 1,
        "duplicates": 0,
        "refused": [],
        "without_effect": 0,
        "unknown_items": 0,
        "unused": {},
        "not_kept": 0,
    }
    after = await ask(client)
    assert "i100" not in {item["item_id"] for item in before["items"]}
    assert "i100" in {item["item_id"] for item in after["items"]}


async def test_an_event_sent_twice_counts_once(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json=event(1, event_type="purchase"))
    once = await ask(client)
    reply = await client.post("/v1/events", json={"events": [event(1, event_type="purchase"), event(2, user_id="u02")]})
    assert reply.json() == {
        "accepted": 1,
        "duplicates": 1,
        "refused": [],
        "without_effect": 0,
        "unknown_items": 0,
        "unused": {},
        "not_kept": 0,
    }
    assert [item["item_id"] for item in (await ask(client))["items"]] == [item["item_id"] for item in once["items"]]


async def test_a_batch_takes_the_good_events_and_names_the_bad(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/events", json={"events": [event(1), event(2, event_type="clicked"), event(3, colour="red")]})
    assert reply.status_code == 200
    assert reply.json()["accepted"] == 1
    assert [(one["index"], one["field"]) for one in reply.json()["refused"]] == [(1, "event_type"), (2, "colour")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/recommendations", None, 405, "method_not_allowed"),
        ("POST", "/v1/recommendations", b"not json", 400, "bad_json"),
        ("POST", "/v1/recommendations", b'{"user_id":"u","kk":1}', 422, "unknown_field"),
        ("POST", "/v1/recommendations", b" " * (1 << 20) + b"{}", 413, "body_too_large"),
        ("POST", "/v1/events", b'{"event_id":"e"}', 422, "missing_field"),
        ("POST", "/v1/events", json.dumps({"events": [{}] * 1001}).encode(), 422, "bad_value"),
        ("GET", "/v1/why/nothing", None, 404, "unknown_request"),
        ("GET", "/nowhere", None, 404, "not_found"),
        ("DELETE", "/healthz", None, 405, "method_not_allowed"),
    ],
)
async def test_what_cannot_be_served_is_refused_in_one_form(
    client: httpx.AsyncClient, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    reply = await client.request(method, path, content=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.json()["error"]["message"]


async def test_an_answer_can_be_explained(client: httpx.AsyncClient) -> None:
    answer = await ask(client)
    story = (await client.get(f"/v1/why/{answer['request_id']}")).json()
    assert story["request_id"] == answer["request_id"]
    assert [item["item_id"] for item in story["items"]] == [item["item_id"] for item in answer["items"]]


async def test_the_inference_protocols_answer_as_the_plain_route_does(door: Api, client: httpx.AsyncClient) -> None:
    plain = [item["item_id"] for item in (await ask(client))["items"]]
    v1 = await client.post(f"/v1/models/{door.model_name}:predict", json={"instances": [{"user_id": "u01"}, {"user_id": "new", "k": 2}]})
    assert [item["item_id"] for item in v1.json()["predictions"][0]["items"]] == plain
    assert len(v1.json()["predictions"][1]["items"]) == 2
    tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "data": ['{"user_id":"u01"}']}
    v2 = await client.post(f"/v2/models/{door.model_name}/infer", json={"id": "7", "inputs": [tensor]})
    assert v2.json()["id"] == "7"
    assert v2.json()["parameters"]["bundle"] == door.digest
    assert [item["item_id"] for item in json.loads(v2.json()["outputs"][0]["data"][0])["items"]] == plain


@pytest.mark.parametrize("inputs", [[], [{"name": "other", "shape": [1], "datatype": "BYTES", "data": ["{}"]}], None])
async def test_a_v2_request_without_the_request_tensor_is_refused(door: Api, client: httpx.AsyncClient, inputs: Any) -> None:
    reply = await client.post(f"/v2/models/{door.model_name}/infer", json={"inputs": inputs})
    assert reply.status_code == 422


async def test_a_server_that_drains_is_alive_but_not_ready_and_still_answers(door: Api, client: httpx.AsyncClient) -> None:
    door.ready = False
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/v2/health/ready")).status_code == 503
    assert len((await ask(client))["items"]) == 10


async def test_metrics_count_by_bundle_what_was_asked(door: Api, client: httpx.AsyncClient) -> None:
    await ask(client)
    await client.get("/nowhere")
    await client.post("/v1/events", json=event(1))
    text = (await client.get("/metrics")).text
    name = door.digest.removeprefix("sha256:")[:12]
    assert f'shortlist_requests_total{{bundle="{name}",route="/v1/recommendations",status="200"}} 1.0' in text
    assert f'shortlist_requests_total{{bundle="{name}",route="other",status="404"}} 1.0' in text
    assert f'shortlist_rung_total{{bundle="{name}",rung="full"}} 1.0' in text
    assert f'shortlist_events_total{{bundle="{name}",outcome="accepted"}} 1.0' in text


async def test_an_event_from_the_future_is_refused_by_a_server_at_the_present(tmp_path: Path) -> None:
    parts = in_process(tiny_options(tmp_path, clock="now"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
        reply = await client.post("/v1/events", json=event(1, timestamp="9999-01-01T00:00:00Z"))
    assert reply.json()["refused"][0]["field"] == "timestamp"
    for close in parts.closers:
        close()


async def test_with_the_state_store_gone_the_list_is_full_and_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = in_process(tiny_options(tmp_path, state=f"sqlite:{tmp_path / 'file' / 'states'}"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
        answer = await ask(client)
        assert len(answer["items"]) == 10
        assert "user state" in answer["degraded"]["reason"]
        taken = await client.post("/v1/events", json=event(1))  # the log is elsewhere: it takes them
        assert taken.json()["accepted"] == 1
    for close in parts.closers:
        close()


async def test_with_the_event_log_gone_events_are_refused_and_lists_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = tiny_options(tmp_path, exposures=tmp_path / "exposures", state=f"sqlite:{tmp_path / 'states'}")
    parts = in_process(replace(options, events=f"dir:{tmp_path / 'file'}"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
        reply = await client.post("/v1/events", json=event(1))
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert (await ask(client))["degraded"] is None
    for close in parts.closers:
        close()


async def test_a_hundred_at_once_are_all_answered_in_full(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(ask(client, user_id=f"u{n % 12:02}") for n in range(100)))
    assert all(len(answer["items"]) == 10 for answer in answers)


async def test_a_body_that_stops_half_way_is_let_go(door: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.http.body.BODY_SECONDS", 0.05)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/recommendations", "headers": []}
    await door(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_a_client_that_leaves_gets_no_reply_and_harms_nothing(door: Api) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await door({"type": "http", "method": "POST", "path": "/v1/events", "headers": []}, receive, send)
    assert sent == []


def test_the_tests_clock_is_half_a_day_after_the_cut(tmp_path: Path) -> None:
    assert tiny_options(tmp_path).start_day == DAY + 0.5
