"""What the server understands, and how it says what it does not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.schema import EVENT_TYPES
from serving import messages
from serving.messages import WireProblem

EVENT = {"event_id": "e1", "event_type": "click", "user_id": "u", "item_id": "i", "timestamp": "2017-11-27T09:30:00Z"}


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b'{"user_id":"718","kk":3}', 422, "unknown_field", "kk"),
        (b'{"user_id":"718","context":{"shop":"x"}}', 422, "unknown_field", "context.shop"),
        (b"{}", 422, "missing_field", "user_id"),
        (b'{"user_id":718}', 422, "bad_value", "user_id"),
        (b'{"user_id":""}', 422, "bad_value", "user_id"),
        (b'{"user_id":"a\\u0000b"}', 422, "bad_value", "user_id"),
        (b'{"user_id":"a\\n"}', 422, "bad_value", "user_id"),
        (b'{"user_id":"u","k":0}', 422, "bad_value", "k"),
        (b'{"user_id":"u","k":100000}', 422, "bad_value", "k"),
        (b'{"user_id":"u","k":1e400}', 422, "bad_value", "k"),
        (b'{"user_id":"u","k":123456789012345678901234567890}', 422, "bad_value", "k"),
        (b'{"user_id":"u","k":NaN}', 400, "bad_json", None),
        (b'{"user_id":"\xff"}', 400, "bad_json", None),
        (b'{"user_id":"\\ud800"}', 400, "bad_json", None),
        (b'{"user_id":"u","context":' + b"[" * 100_000, 422, "bad_value", "context"),
        (b"[" * 100_000, 422, "bad_value", None),
        (b"", 400, "bad_json", None),
        (b'{"user_id":"u"} more', 400, "bad_json", None),
    ],
)
def test_a_bad_request_is_refused_and_the_field_named(body: bytes, status: int, code: str, field: str | None) -> None:
    with pytest.raises(WireProblem) as refused:
        messages.decode(messages.recommendation, body)
    assert (refused.value.status, refused.value.code, refused.value.field) == (status, code, field)


def test_one_event_and_a_batch_of_it_mean_the_same() -> None:
    single, _ = messages.events(json.dumps(EVENT).encode(), EVENT_TYPES)
    batch, refused = messages.events(json.dumps({"events": [EVENT]}).encode(), EVENT_TYPES)
    assert single == batch
    assert refused == []


def test_a_bad_event_in_a_batch_is_refused_alone_by_its_place() -> None:
    bad = {**EVENT, "timestamp": "2017-11-27T09:30:00"}  # no time zone
    taken, refused = messages.events(json.dumps({"events": [EVENT, bad, 3]}).encode(), EVENT_TYPES)
    assert list(taken) == [0]
    assert [(one.index, one.code, one.field) for one in refused] == [(1, "bad_value", "timestamp"), (2, "bad_value", None)]


@pytest.mark.parametrize("value", [-1.0, 1e13])
def test_an_amount_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(WireProblem, match="value") as refused:
        messages.events(json.dumps({**EVENT, "value": value}).encode(), EVENT_TYPES)
    assert refused.value.field == "value"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.deferred(lambda: LEAVES | st.lists(JSON, max_size=3) | st.dictionaries(st.text(), JSON, max_size=3))


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_message_or_a_problem(body: bytes) -> None:
    refused = []
    for read in (
        lambda body: messages.events(body, EVENT_TYPES),
        lambda body: messages.decode(messages.recommendation, body),
        lambda body: messages.decode(messages.instances, body),
    ):
        try:
            read(body)
        except WireProblem as problem:
            refused.append(problem.status)
    assert all(400 <= status < 500 for status in refused)
