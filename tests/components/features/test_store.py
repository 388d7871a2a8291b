"""A system's features are what its own Feast services say, in their order; what is no number of a user or an item is refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.features.store import BadService, apply, feature_names

WORLD = Path(__file__).parents[2] / "world" / "feature_repo"
VIEW = """
from feast import FeatureView, Field, FileSource
from feast.types import Float32, String

own = FeatureView(
    name="own", entities=[{entity}], schema=[{fields}],
    source=FileSource(name="own", path="own.parquet", timestamp_field="event_timestamp"),
)
users = FeatureService(name="users", features=[{services}])
"""


def applied(world, world_system, tmp_path, fields, entity="user", services="user_stats.view, own"):
    """The store of the world's repo with one view more."""
    repo = tmp_path / "repo"
    repo.mkdir()
    text = (WORLD / "features.py").read_text()
    (repo / "features.py").write_text(text + VIEW.format(fields=fields, entity=entity, services=services))
    (repo / "feature_store.yaml").write_text((WORLD / "feature_store.yaml").read_text())
    return apply(replace(world_system, feature_repo=str(repo)), tmp_path / "run", world.until)


def test_a_services_features_stand_in_the_order_of_its_views_and_their_schemas(world, world_system, tmp_path):
    fields = 'Field(name="zeal", dtype=Float32), Field(name="age", dtype=Float32)'
    names = feature_names(applied(world, world_system, tmp_path, fields, services="own, user_stats.view"), "users")
    assert names[:3] == ("zeal", "age", "user_baskets_7")
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("fields", "entity", "message"),
    [
        ('Field(name="tier", dtype=String)', "user", r"the feature tier of the view own is a String.*: rankers read numbers"),
        ('Field(name="tier", dtype=Float32)', "item", r"the view own is about item_id, but the service 'users' reads by user_id"),
        ('Field(name="user_items", dtype=Float32)', "user", r"the service 'users' has two features 'user_items'"),
    ],
)
def test_what_is_no_number_of_a_user_is_refused_by_name(world, world_system, tmp_path, fields, entity, message):
    with pytest.raises(BadService, match=message):
        feature_names(applied(world, world_system, tmp_path, fields, entity), "users")


def test_a_repo_without_the_service_is_told_what_to_add(world, world_system, tmp_path):
    store = applied(world, world_system, tmp_path, 'Field(name="tier", dtype=Float32)')
    store.delete_feature_service("items")
    with pytest.raises(BadService, match="the feature repo of world has no FeatureService 'items': add one"):
        feature_names(store, "items")
