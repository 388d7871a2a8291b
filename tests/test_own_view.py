"""A view that is added to a repo, and nothing else, is learnt from, answered by, and named by who asks why."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluation.evaluate import evaluate
from components.features.build import build
from serving.bundle.bundle import Bundle
from serving.query import Request
from serving.ranking.feature_parts import feature_parts
from serving.recommender import Recommender
from serving.state.user_state import StateTable
from tests.world.loop import learn

VIEW = """
from datetime import timedelta

from feast import FeatureView, Field, FileSource
from feast.types import Float32, String

forecast = FeatureView(
    name="forecast", entities=[item], ttl=timedelta(days=8),
    schema=[Field(name="item_id", dtype=String), Field(name="demand", dtype=Float32)],
    source=FileSource(name="forecast", path="forecast.parquet", timestamp_field="event_timestamp"),
)
items = FeatureService(name="items", features=[item_stats.view, forecast])
"""


def forecast(world, cuts) -> pa.Table:
    """What a perfect planner says each week of the week that follows: log1p of each item's sales in it."""
    events = pq.read_table(world.folder / "events.parquet").to_pylist()
    items = pq.read_table(world.folder / "items.parquet")["item_id"].to_pylist()
    rows = []
    for cut in cuts:
        sold = [one["item_id"] for one in events if one["event_type"] == "purchase" and cut <= one["timestamp"] < cut + timedelta(days=7)]
        rows += [{"item_id": item, "event_timestamp": cut, "demand": float(np.log1p(sold.count(item)))} for item in items]
    return pa.Table.from_pylist(rows)


@pytest.mark.slow
def test_an_informative_column_elsewhere_moves_ndcg_and_is_named(trained, world, world_system, tmp_path):
    repo = tmp_path / "repo"
    shutil.copytree(Path(__file__).parent / "world" / "feature_repo", repo, ignore=shutil.ignore_patterns("__pycache__"))
    (repo / "features.py").write_text((repo / "features.py").read_text() + VIEW)
    pq.write_table(forecast(world, [world.until - timedelta(days=7 * week) for week in range(8)]), repo / "forecast.parquet")
    system = replace(world_system, feature_repo=str(repo))
    build(system, tables=trained.validate, out=tmp_path / "features", until=world.until.isoformat(), cuts=system.learning.cuts)
    bundle = learn(system, tmp_path)

    catalogue = Bundle.load(bundle).catalogue
    assert catalogue.feature_names[-1] == "demand"
    ndcg = []
    for folder, features in ((trained.bundle, trained.features), (bundle, tmp_path / "features")):
        evaluate(world_system, bundle=folder, features=features, out=tmp_path / f"metrics{len(ndcg)}")
        ndcg.append(_ndcg(tmp_path / f"metrics{len(ndcg)}"))
    print("NDCG@10 without and with the column:", ndcg)
    assert ndcg[1] > ndcg[0] + 0.02

    recommender = Recommender(Bundle.load(bundle), system)
    users = StateTable.load(sorted((tmp_path / "features" / "cuts").iterdir())[-1] / "users")
    named = [feature for user in range(0, 50, 5) for feature in _first_features(recommender, users, user)]
    assert named.count("demand") >= len(named) / 3


def _ndcg(folder: Path) -> float:
    import json

    found = json.loads((folder / "metrics.json").read_text())
    return float(found["protocols"]["all"]["recommenders"]["candidate"]["ndcg@10"]["value"])


def _first_features(recommender, users, user) -> list[str]:
    """The feature that moved each item of the user's list most."""
    query = recommender.query(Request("", 5, users.cut_day), users[user])
    side, named = recommender.user_side(query), recommender.bundle.user_features
    pool = recommender.retrieve(query, side)
    scores = recommender.scoring.rank(query, side, pool)
    rows = recommender.arrange(query, recommender.scoring.order(pool, scores)).rows
    found = feature_parts(recommender.scoring, query, recommender.side_of(query), named, pool, scores, rows)
    return [told[0]["feature"] for told in found.values()]
