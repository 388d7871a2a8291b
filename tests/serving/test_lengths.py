"""One definition of an id and of a text at every door: what one refuses none takes, and the reason names the field."""

from typing import Any

import httpx

from feature_repo.schema import LONGEST_ID, LONGEST_TEXT

WRONG = {
    "zero byte": "a\0b",
    "300 characters": "x" * 300,
    "20,000 characters": "x" * 20_000,
    "nothing": "",
    "a line's end": "a\nb",
    "DEL": "a\x7fb",
}
EVENT = {"event_id": "e", "event_type": "click", "user_id": "u01", "item_id": "i001", "timestamp": "2024-10-04T12:00:00Z"}
ASK = {"user_id": "u01"}
MODEL = "shortlist-tiny"


def put(body: dict[str, Any], path: str, value: str) -> dict[str, Any]:
    """A copy of a body with the value at a dotted path."""
    first, _, rest = path.partition(".")
    return body | {first: put(body.get(first, {}), rest, value) if rest else value}


async def test_an_id_that_is_none_is_refused_at_every_door_and_its_field_named(client: httpx.AsyncClient) -> None:
    for name, wrong in WRONG.items():
        for path in ("user_id", "context.place", "context.region", "context.page", "context.device_type"):
            if name == "nothing" and path != "user_id":
                continue  # not said is allowed
            asked = put(ASK, path, wrong)
            reply = await client.post("/v1/recommendations", json=asked)
            assert (reply.status_code, reply.json()["error"]["field"]) == (422, path), name
            v1 = await client.post(f"/v1/models/{MODEL}:predict", json={"instances": [asked]})
            assert (v1.status_code, path in v1.json()["error"]) == (422, True), name
        for path in ("event_id", "user_id", "item_id"):
            alone = await client.post("/v1/events", json=put(EVENT, path, wrong))
            assert (alone.status_code, alone.json()["error"]["field"]) == (422, path), name
            good = EVENT | {"event_id": f"{name}-{path}"}
            batch = (await client.post("/v1/events", json={"events": [put(EVENT, path, wrong), good]})).json()
            assert (batch["accepted"], [(one["index"], one["field"]) for one in batch["refused"]]) == (1, [(0, path)]), name
        item = await client.post("/v1/items", json={"items": [{"item_id": wrong}]})
        assert (item.status_code, item.json()["error"]["field"]) == (422, "items[0].item_id"), name
        said = await client.post("/v1/safety", json={"messages": [{"item_id": wrong, "action": "recall"}]})
        assert (said.status_code, said.json()["error"]["field"]) == (422, "messages[0].item_id"), name


async def test_the_longest_id_and_text_are_taken_everywhere_and_one_more_nowhere(client: httpx.AsyncClient) -> None:
    for letter in ("x", "ü", "\U0001f600"):  # one, two and four bytes: it is characters that count
        longest, over = letter * LONGEST_ID, letter * (LONGEST_ID + 1)
        assert (await client.post("/v1/recommendations", json={"user_id": longest})).status_code == 200
        assert (await client.post("/v1/recommendations", json={"user_id": over})).status_code == 422
        event = EVENT | {"event_id": longest, "user_id": longest, "item_id": longest}
        assert (await client.post("/v1/events", json=event)).json()["accepted"] == 1
        item = {"item_id": longest, "title": letter * LONGEST_TEXT, "category": "D > C3"}
        assert (await client.post("/v1/items", json={"items": [item]})).json()["accepted"] == 1
        assert (await client.post("/v1/items", json={"items": [item | {"title": letter * (LONGEST_TEXT + 1)}]})).status_code == 422
        assert (await client.post("/v1/safety", json={"messages": [{"item_id": longest, "action": "block"}]})).json()["unknown_items"] == 0
    assert (await client.get(f"/v1/why/{'x' * 2000}")).status_code == 404
    assert (await client.get("/v1/why/%00")).status_code == 404
