"""Features of all events and of items' attributes, against a small world worked out by hand."""

import math
from datetime import UTC, datetime, timedelta

import ibis
import pytest

from feature_repo.expressions import history, stats
from feature_repo.library import (
    Feature,
    attribute,
    days_old,
    happened,
    having,
    mean_attribute,
    rate,
    share_having,
    share_of_events,
    time_of_day,
    value_rate,
)
from feature_repo.schema import Worth

CUT = datetime(2024, 3, 4, tzinfo=UTC)
NEVER = CUT + timedelta(days=9)


def happens(number: int, kind: str, user: str, item: str, days: float, value: float | None = None, device: str = "tv") -> dict[str, object]:
    return {
        "event_id": f"e{number}", "event_type": kind, "user_id": user, "item_id": item, "timestamp": CUT - timedelta(days=days),
        "value": value, "price": None, "session_id": None, "context_store": None, "device_type": device,
    }  # fmt: skip


EVENTS = [
    *(happens(n, "impression", "ann", "a", 1) for n in range(4)),
    happens(4, "click", "ann", "a", 1),
    happens(5, "watch", "ann", "a", 1, 100.0),
    happens(6, "watch", "bob", "a", 3.25, 40.0, device="mobile"),
    happens(7, "impression", "bob", "b", 2, device="mobile"),
    happens(8, "watch", "bob", "b", -1, 900.0),  # after the cut
]
TOLD = '{"seconds": 120, "language": "de"}'
ITEMS = [
    {"item_id": "a", "category": "x > y > z", "brand": "one", "created_at": CUT - timedelta(days=3), "attributes": TOLD},
    {"item_id": "b", "category": "x > y > w", "brand": "one", "created_at": NEVER, "attributes": None},
]  # fmt: skip


def computed(key: str, *features: Feature) -> dict[str, dict[str, float]]:
    """Rows by id."""
    schema = {
        "event_id": "string", "event_type": "string", "user_id": "string", "item_id": "string", "timestamp": "timestamp('UTC')",
        "value": "float64", "price": "float64", "session_id": "string", "context_store": "string", "device_type": "string",
    }  # fmt: skip
    events, items = ibis.memtable(EVENTS, schema=schema), ibis.memtable(ITEMS)
    texts, times = ("item_id", "place", "display", "mailer"), ("valid_from", "valid_until")
    context = ibis.memtable([], schema=dict.fromkeys(texts, "string") | dict.fromkeys(times, "timestamp('UTC')"))
    past = history(events, items, context, {"watch": Worth()})
    rows = stats(features, key, past, events, items, context, CUT).to_pyarrow().to_pylist()
    return {row[key]: row for row in rows}


def test_rates_are_pulled_to_what_is_usual_by_how_little_was_seen() -> None:
    found = computed(
        "item_id",
        happened("shown", "impression"),
        rate("click_rate", "click", "impression", usual=0.1),
        value_rate("seconds_shown", "watch", "impression", usual=20.0, days=2),
        rate("channel_clicks", "click", "impression", usual=0.1, group="brand", weight=5),
    )
    assert found["a"]["shown"] == pytest.approx(math.log1p(4))
    assert found["a"]["click_rate"] == pytest.approx((1 + 0.1 * 20) / (4 + 20))
    assert found["a"]["seconds_shown"] == pytest.approx((100 + 20 * 20) / (4 + 20))  # bob's is three days old
    assert found["b"]["seconds_shown"] == pytest.approx((0 + 20 * 20) / (1 + 20))  # the watch of tomorrow is not known
    assert found["a"]["channel_clicks"] == found["b"]["channel_clicks"] == pytest.approx((1 + 0.5) / (5 + 5))


def test_attributes_and_age_are_null_where_they_are_not_told_or_yet_to_come() -> None:
    found = computed("item_id", attribute("length", "seconds"), having("german", "language", "de"), days_old("days_old"))
    assert found["a"] == {"item_id": "a", "length": pytest.approx(math.log1p(120)), "german": 1.0, "days_old": pytest.approx(math.log1p(3))}
    assert found["b"] == {"item_id": "b", "length": None, "german": 0.0, "days_old": None}


def test_a_user_is_what_they_had_and_did() -> None:
    found = computed(
        "user_id",
        mean_attribute("length", "seconds"),
        share_having("german", "language", "de"),
        share_of_events("on_tv", "device_type", "tv"),
        rate("click_rate", "click", "impression", usual=0.1),
    )
    assert found["ann"]["length"] == pytest.approx(math.log1p(120))
    assert found["ann"]["german"] == found["ann"]["on_tv"] == 1
    assert found["bob"]["on_tv"] == 0
    assert found["bob"]["click_rate"] == pytest.approx((0 + 2) / (1 + 20))


def test_the_usual_hour_is_the_mean_of_the_days_circle() -> None:
    """Ann watched at midnight; bob at 18:00, three quarters around."""
    found = computed("user_id", time_of_day("sine", "sin"), time_of_day("cosine", "cos"))
    assert (found["ann"]["sine"], found["ann"]["cosine"]) == pytest.approx((0, 1))
    assert (found["bob"]["sine"], found["bob"]["cosine"]) == pytest.approx((-1, 0))
