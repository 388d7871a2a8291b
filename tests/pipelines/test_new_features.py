"""The features that `shortlist new` writes are those the tables have something for, and can be computed as they are written."""

from dataclasses import replace
from pathlib import Path

import ibis
import pytest

from components.data.facts import Facts
from components.features.store import definitions
from feature_repo.expressions import stats
from pipelines.new_features import write_repo
from tests.world.generate import START

ALL = ("session_id", "price", "value", "context_store")
ROW = {
    "event_id": "e", "user_id": "ann", "item_id": "i1", "timestamp": START, "price": 2.0, "session": "s", "store": "north", "spend": 2.0,
    "brand": "b", "department": "d", "category": "c", "type": "t", "promoted": 0.0, "repeat": 0.0,
}  # fmt: skip
PLAN = {"item_id": "i1", "place": "north", "valid_from": START, "valid_until": START, "display": "1", "mailer": "2"}


def facts(empty=(), levels=(2, 3, 4), brands=3, plans=5, again=0.2) -> Facts:
    rows = {"events": 100, "items": 10, "users": 10, "context": plans}
    return Facts(
        rows,
        {"events": empty, "items": (), "users": (), "context": ()},
        {"click": 100},
        {"click": again},
        {},
        {},
        levels,
        brands,
        56,
        False,
    )


def written(world_system, folder: Path, given: Facts):
    write_repo("film", given, folder / "film_features")
    return {view.key: view for view in definitions(replace(world_system, feature_repo=str(folder / "film_features"))).computed}


@pytest.mark.parametrize("given", [facts(), facts(ALL, (0, 0, 0), 0, 0, 0.0), facts(("price",), (4, 0, 0), 2, 0)])
def test_every_line_can_be_computed(world_system, tmp_path, given):
    views = written(world_system, tmp_path, given)
    rows, items, context = (
        ibis.memtable([ROW]),
        ibis.memtable([{"item_id": "i1", "brand": "b", "category": "d > c", "attributes": "{}", "created_at": START}]),
        ibis.memtable([PLAN]),
    )
    events = ibis.memtable([{"item_id": "i1", "user_id": "u1", "event_type": "click", "timestamp": START, "value": 1.0}])
    for key, view in views.items():
        found = stats(view.features, key, rows, events, items, context, START.replace(year=2025)).execute()
        assert list(found.columns) == [key, *(feature.name for feature in view.features)]
        assert len(found) == 1


def test_a_log_of_clicks_has_no_prices_stores_plans_or_categories(world_system, tmp_path):
    views = written(world_system, tmp_path, facts(ALL, (0, 0, 0), 0, 0, 0.0))
    names = {feature.name for view in views.values() for feature in view.features}
    assert {"user_visits_7", "user_items", "item_users_28", "item_trend"} <= names
    assert [
        name for name in names if any(word in name for word in ("price", "spend", "store", "plan", "promoted", "brand", "type", "again"))
    ] == []
