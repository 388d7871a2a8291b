"""Two towers: they find the one item left, read content of what was never sold, and answer by exact search or by cells."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.retrieval import cells, two_tower
from components.retrieval.tower_model import Towers
from components.retrieval.tower_training import singular_vectors
from serving.native import kernel
from serving.query import Query
from serving.retrieval.interest import interest
from serving.retrieval.top_k import select
from serving.retrieval.two_tower import BAG_TAU_DAYS, FRESH_EVERY, TowerTable, TwoTower
from serving.retrieval.two_tower import two_tower as tower_spec
from serving.state.user_state import UserState
from serving.system import SourceSpec
from tests.components.retrieval.worlds import CUT_DAY, Event, catalogue, clicked, cut, query

SIZE = 40
SPEC = tower_spec(share=1.0, dimensions=16)


def coloured() -> tuple[list[Event], np.ndarray]:
    """Users and items of two colours; a user had most items of the own colour. Items 38 (even) and 39 (odd) were never had."""
    random = np.random.default_rng(0)
    events = []
    for user in range(60):
        own = np.arange(user % 2, SIZE - 2, 2)
        events += [(f"{user:02d}", f"{item:02d}", float(CUT_DAY - random.integers(15, 27))) for item in random.permutation(own)[:14]]
    kinds = np.repeat(np.arange(SIZE)[:, None] % 2 + 1, 3, axis=1)
    return events, kinds


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory):
    """The towers learnt on the coloured world, thirty times over its history: the cut, the source, the user vectors, the folder."""
    home = tmp_path_factory.mktemp("towers")
    events, kinds = coloured()
    world = cut(events, catalogue([f"{i:02d}" for i in range(SIZE)], kinds))
    advancing = two_tower.Advancing(SPEC, fast=False, seed=0)
    for _ in range(30):
        vectors = advancing.advance(world, home / "source", home / "towers.pt")
    assert vectors is not None  # of one process it is the first
    return world, TwoTower.load(home / "source", SPEC, world.catalogue), vectors, home


def vector_of(world, source: TwoTower, home: Path, asked: Query) -> np.ndarray:
    """The user's vector as `request.onnx` makes it."""
    towers = Towers.load(home / "towers.pt")
    features = np.zeros((1, len(world.users.feature_names)), np.float32)
    with torch.no_grad():
        return towers.user(torch.from_numpy(features), torch.from_numpy(source.history_embedding(asked)[None])).numpy()[0]


def test_every_user_is_led_to_their_own_colour(learnt) -> None:
    world, source, vectors, _ = learnt
    for user in range(60):
        hits = source.retrieve(query(world.users[user], world.catalogue, discover=True), 5, vectors[user])
        assert (hits.rows % 2 == user % 2).all()
        assert not np.isin(hits.rows, query(world.users[user], world.catalogue).history_rows).any()


def test_items_never_sold_are_placed_by_their_content(learnt) -> None:
    world, source, vectors, _ = learnt
    for user in range(60):
        scores = source.retrieve(query(world.users[user], world.catalogue), SIZE, vectors[user]).values
        assert (scores[38] > scores[39]) == (user % 2 == 0)


def test_a_click_turns_the_history_bag_and_the_list(learnt) -> None:
    world, source, _, home = learnt
    even = query(clicked(UserState("new"), "04"), world.catalogue)
    odd = query(clicked(UserState("new"), "05"), world.catalogue)
    for asked, colour in ((even, 0), (odd, 1)):
        hits = source.retrieve(asked, 5, vector_of(world, source, home, asked))
        assert (hits.rows % 2 == colour).all()
    assert not source.history_embedding(query(UserState("new"), world.catalogue)).any()


def test_the_bag_is_the_weighted_mean_of_its_rows(learnt) -> None:
    world, source, _, _ = learnt
    asked = query(clicked(world.users[3], "04"), world.catalogue)
    rows, weights = interest(asked, BAG_TAU_DAYS)
    slow = sum(float(w) * source.table.history[row].astype(float) for row, w in zip(rows, weights, strict=True)) / float(weights.sum())
    np.testing.assert_allclose(source.history_embedding(asked), slow, atol=1e-5)


def test_vectors_of_all_users_at_once_are_those_made_one_by_one(learnt) -> None:
    world, source, vectors, home = learnt
    for user in (0, 7, 59):
        alone = vector_of(world, source, home, query(world.users[user], world.catalogue))
        np.testing.assert_allclose(vectors[user], alone, atol=1e-5)


def test_scores_are_the_formula_within_int8(learnt) -> None:
    world, source, vectors, home = learnt
    towers = Towers.load(home / "towers.pt")
    items = two_tower.item_vectors(world, towers, two_tower.catalogue_content(world.catalogue))
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    scores = source.retrieve(query(world.users[0], world.catalogue), 5, vectors[0]).values
    np.testing.assert_allclose(scores, items @ vectors[0] / source.table.temperature + source.table.prior, atol=0.1)


def test_without_a_vector_the_source_is_silent(learnt) -> None:
    world, source, _, _ = learnt
    assert not len(source.retrieve(query(world.users[0], world.catalogue), 5).rows)


def test_learning_twice_from_one_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    events, kinds = coloured()
    world = cut(events, catalogue([f"{i:02d}" for i in range(SIZE)], kinds))
    for name in ("one", "two"):
        two_tower.Advancing(SPEC, fast=True, seed=3).advance(world, tmp_path / name, tmp_path / f"{name}.pt")
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_singular_vectors_span_what_an_exact_decomposition_spans() -> None:
    events, kinds = coloured()
    world = cut(events, catalogue([f"{i:02d}" for i in range(SIZE)], kinds))
    vectors = singular_vectors(world, 2, seed=0)[: SIZE - 2]
    cosine = vectors @ vectors.T
    same = np.equal.outer(np.arange(SIZE - 2) % 2, np.arange(SIZE - 2) % 2)
    assert cosine[same].min() > 0.5 > cosine[~same].max()  # the two colours are the two first directions


def table_world(items: int, dimensions: int = 16, seed: int = 0) -> TowerTable:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, dimensions))
    vectors = centres[random.integers(0, 20, items)] + random.normal(size=(items, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scales = np.abs(vectors).max(axis=1) / 127
    return TowerTable(
        np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32), random.normal(size=items).astype(np.float32),
        vectors.astype(np.float16), 0.15,
    )  # fmt: skip


@pytest.mark.parametrize("asked", ["near", "far"])
def test_cells_keep_the_recall_they_were_built_for(asked: str, tmp_path: Path) -> None:
    table = table_world(8000)
    users = table_world(64, seed=0 if asked == "near" else 5).history.astype(np.float32)
    made = cells.build(table, users / np.float32(table.temperature), 100, seed=0)
    assert made.probes < len(made.ends)
    assert sorted(made.rows.tolist()) == list(range(8000))
    table.save(tmp_path)
    made.save(tmp_path / "cells")
    world = catalogue([f"{i:04d}" for i in range(8000)])
    by_cells, exact = TwoTower.load(tmp_path, SPEC, world), TwoTower(SPEC, table)
    if kernel.native():
        found = by_cells.retrieve(query(UserState("u"), world), 100, users[0])
        kernel.use(False)
        try:
            again = by_cells.retrieve(query(UserState("u"), world), 100, users[0])
        finally:
            kernel.use(True)
        assert found.rows.tolist() == again.rows.tolist()
        assert found.scores.tolist() == again.scores.tolist()
    nobody = query(UserState("u"), world)
    found = [np.isin(exact.retrieve(nobody, 100, user).rows, by_cells.retrieve(nobody, 100, user).rows).mean() for user in users]
    assert np.mean(found) >= cells.LEAST_RECALL - 0.005


def test_new_items_get_every_twenty_fifth_place() -> None:
    table = table_world(3000)
    table.prior[2900:] = -100  # a hundred new items, without a chance of their own
    new = np.arange(3000) >= 2900
    source = TwoTower(SourceSpec("two_tower", 1.0), table, new)
    world = catalogue([f"{i:04d}" for i in range(3000)])
    vector = table.history[0].astype(np.float32)
    hits = source.retrieve(query(UserState("u"), world), 100, vector)
    assert np.flatnonzero(hits.rows >= 2900).tolist() == [FRESH_EVERY - 1 + FRESH_EVERY * i for i in range(100 // FRESH_EVERY)]
    assert len(np.unique(hits.rows)) == 100
    best_new = 2900 + select(hits.values[2900:].copy(), 4)
    assert hits.rows[FRESH_EVERY - 1 :: FRESH_EVERY].tolist() == best_new.tolist()
