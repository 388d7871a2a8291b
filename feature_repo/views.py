"""A feature view whose rows are made here, from the four tables: what a system picks of `feature_repo/library.py`, as Feast has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource
from feast.types import Float32, String

from feature_repo.library import Feature

FRESH = timedelta(days=8)  # snapshots are weekly: an older one is not an answer


@dataclass(frozen=True)
class Computed:
    """`view` is what Feast services name; its snapshots lie in the run's folder under its name."""

    view: FeatureView
    key: str  # user_id or item_id
    features: tuple[Feature, ...]


def computed(name: str, entity: Entity, features: Sequence[Feature]) -> Computed:
    """A view of `entity` (its key is user_id or item_id) with these features, in this order."""
    fields = [Field(name=entity.join_key, dtype=String), *(Field(name=feature.name, dtype=Float32) for feature in features)]
    source = FileSource(name=f"{name}_source", path=f"{name}.parquet", timestamp_field="event_timestamp")
    return Computed(FeatureView(name=name, entities=[entity], ttl=FRESH, schema=fields, source=source), entity.join_key, tuple(features))
