"""The shop's Feast objects, all in this one file: Feast imports each file of a repo by itself and would meet shared objects twice."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, String

from feature_repo.names import ITEM_FEATURES, USER_FEATURES

FRESH = timedelta(days=8)  # snapshots are weekly: an older one is not an answer

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

user_stats = FeatureView(
    name="user_stats",
    entities=[user],
    ttl=FRESH,
    schema=[Field(name="user_id", dtype=String), *(Field(name=name, dtype=Float32) for name in USER_FEATURES)],
    source=FileSource(name="user_stats_source", path="user_stats.parquet", timestamp_field="event_timestamp"),
)
item_stats = FeatureView(
    name="item_stats",
    entities=[item],
    ttl=FRESH,
    schema=[Field(name="item_id", dtype=String), *(Field(name=name, dtype=Float32) for name in ITEM_FEATURES)],
    source=FileSource(name="item_stats_source", path="item_stats.parquet", timestamp_field="event_timestamp"),
)

users = FeatureService(name="users", features=[user_stats])  # what a request reads of its user
items = FeatureService(name="items", features=[item_stats])  # what a bundle holds of every item
