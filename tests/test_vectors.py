"""The vectors in a file are those the two-tower source searches by: their products are its scores."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.evaluation.batch import open_recommender
from pipelines import vectors as command
from pipelines.vectors import NoVectors, vectors
from serving.query import Request
from serving.state.user_state import StateTable
from tests.conftest import WORLD_SYSTEM
from tests.serving import tiny_bundle


def home_of(bundle: Path, users: Path, home: Path) -> Path:
    """A home that holds them as releases lie."""
    (home / "users").mkdir(parents=True)
    (home / "users" / bundle.name).symlink_to(users)
    return home


def columns(file: Path, name: str) -> tuple[list[str], np.ndarray, dict[bytes, bytes]]:  # type: ignore[type-arg]
    table = pq.read_table(file)
    return table[name].to_pylist(), np.stack(table["vector"].to_numpy(zero_copy_only=False)), table.schema.metadata


def test_products_of_the_files_are_the_scores_of_the_source(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "USERS_AT_ONCE", 50)  # several row groups
    home = home_of(trained.bundle, trained.users, tmp_path)
    states = StateTable.load(trained.users)
    recommender = open_recommender(trained.system, trained.bundle)
    assert vectors(str(WORLD_SYSTEM), tmp_path / "items.parquet", items=True, home=home, bundle=trained.bundle) == len(
        recommender.catalogue
    )
    assert vectors(str(WORLD_SYSTEM), tmp_path / "users.parquet", items=False, home=home, bundle=trained.bundle) == len(states)
    item_ids, of_items, told = columns(tmp_path / "items.parquet", "item_id")
    user_ids, of_users, _ = columns(tmp_path / "users.parquet", "user_id")
    assert item_ids == [recommender.catalogue.item_id(row) for row in range(len(recommender.catalogue))]
    assert user_ids == [bytes(user).decode() for user in states.user_ids]
    assert np.allclose(np.linalg.norm(of_items, axis=1), 1, atol=0.02)
    assert told[b"bundle"].decode() == recommender.bundle.digest
    tower = next(source for source in recommender.sources if source.spec.kind == "two_tower")
    prior = pq.read_table(tmp_path / "items.parquet")["prior"].to_numpy()
    for at in range(0, len(states), 40):
        query = recommender.query(Request(user_ids[at], 10, states.cut_day), states[at])
        hits = tower.retrieve(query, len(item_ids), of_users[at])
        expected = of_items @ of_users[at] / float(told[b"temperature"]) + prior
        spread = np.ptp(expected)
        assert np.abs(hits.scores - expected[hits.rows]).max() < 0.02 * spread  # the search rounds the user's vector to int8


def test_a_system_without_towers_says_so(tmp_path):
    bundle = tiny_bundle.write_tiny(tmp_path / "bundles")
    tiny_bundle.states().save(tmp_path / "users")
    home = home_of(bundle, tmp_path / "users", tmp_path / "home")
    with pytest.raises(NoVectors, match=r"its sources are buy_again, linear, trending: add two_tower"):
        vectors(str(tiny_bundle.SYSTEM_FILE), tmp_path / "out", items=True, home=home, bundle=bundle)
