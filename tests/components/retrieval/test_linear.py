"""EASE: by users and by items is the closed form, factors stand in beyond them, neighbours are kept by size, votes are exact."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from components.retrieval import linear
from components.retrieval.linear import Effort, Gram, by_factors, by_items, by_users, gram_of, neighbours_of
from serving.retrieval.linear import Linear
from serving.retrieval.linear import linear as linear_spec
from tests.components.retrieval.worlds import CUT_DAY, catalogue, checkerboard, clicked, cut, query

EVERYTHING = Effort(least_users=1, neighbours=1000)


def primal(counts: np.ndarray, weight: float) -> np.ndarray:
    """B of Steck 2019, equation 8: P = (X'X + lambda I)^-1, B_ij = -P_ij / P_jj, zero diagonal."""
    inverse = np.linalg.inv(counts.T @ counts + weight * np.eye(counts.shape[1]))
    matrix = -inverse / np.diag(inverse)
    np.fill_diagonal(matrix, 0)
    return matrix


def random_world(users: int = 12, items: int = 30, seed: int = 0):
    random = np.random.default_rng(seed)
    events = [(f"{u:02d}", f"{i:02d}", float(CUT_DAY - random.integers(1, 60))) for u in range(users) for i in random.choice(items, 8)]
    return cut(events, catalogue([f"{i:02d}" for i in range(items)]))


def dense_counts(world) -> np.ndarray:
    counts = np.zeros(world.history.shape)
    counts[world.history.user, world.history.row] = np.log1p(world.history.decay(linear.TAU_DAYS))
    return counts


def whole(gram: Gram) -> np.ndarray:
    """B (M, M)."""
    matrix = gram.rows(np.arange(len(gram.gain))).numpy() / (1 - gram.gain)
    np.fill_diagonal(matrix, 0)
    return matrix


def sparse_counts(world):
    return scipy.sparse.csr_matrix(dense_counts(world).astype(np.float32))


@pytest.mark.parametrize(("users", "items"), [(12, 30), (40, 10)])
def test_by_users_and_by_items_equal_the_closed_form(users: int, items: int) -> None:
    world = random_world(users, items)
    for gram in (Gram.of(by_users(sparse_counts(world), 5.0)), by_items(sparse_counts(world), 5.0)):
        np.testing.assert_allclose(whole(gram), primal(dense_counts(world), 5.0), atol=2e-5)
        np.testing.assert_allclose(np.diag(gram.rows(np.arange(items)).numpy()), gram.gain, atol=1e-6)


def test_the_smaller_side_is_taken_and_beyond_the_bounds_factors() -> None:
    few_users, few_items = random_world(12, 30).history, random_world(40, 10).history
    asked = {"users": few_users, "items": few_items}
    effort = Effort(1, 5)
    forms = {name: gram_of(history, 1, effort)[1] for name, history in asked.items()}
    assert forms["items"].gain == pytest.approx(by_items(sparse_counts(random_world(40, 10)), linear.LAMBDA).gain, abs=1e-7)
    assert forms["users"].gain == pytest.approx(by_items(sparse_counts(random_world(12, 30)), linear.LAMBDA).gain, abs=1e-6)
    small = replace(effort, most_work=12 * 30 * 42 - 1, most_dense=9)
    for name, history in asked.items():
        rows, gram = gram_of(history, 1, small)
        assert len(rows) == len(gram.gain)
        factors = by_factors(sparse_counts(random_world(12, 30) if name == "users" else random_world(40, 10)))
        assert gram.gain == pytest.approx(np.square(factors).sum(axis=0))


def test_beyond_the_bounds_items_few_had_have_no_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_ITEMS", 7)
    world = random_world(40, 20)
    rows, gram = gram_of(world.history, 1, Effort(1, 5, most_dense=0))
    had = np.bincount(world.history.row, minlength=20)
    assert len(rows) == len(gram.gain) == 7
    assert had[rows].min() >= np.delete(had, rows).max()


def test_factors_find_the_items_of_ones_colour() -> None:
    world = cut(checkerboard(20), catalogue([f"{i:02d}" for i in range(20)]))
    matrix = whole(Gram.of(by_factors(sparse_counts(world))))
    same = (np.arange(20)[:, None] - np.arange(20)) % 2 == 0
    np.fill_diagonal(same, False)
    assert matrix[same].min() > matrix[~same].max()


def test_kept_neighbours_are_the_greatest_in_size_of_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_BLOCK", 7)
    gram = gram_of(random_world().history, 1, Effort(1, 5))[1]
    matrix = whole(gram)
    positions, values = neighbours_of(gram, 5)
    expected = -np.sort(-np.abs(matrix), axis=1)[:, :5]
    np.testing.assert_allclose(np.abs(values), expected, rtol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(matrix, positions.astype(int), axis=1), values, rtol=1e-4)


@pytest.fixture
def fitted(tmp_path: Path):
    def fit(world, effort: Effort = EVERYTHING) -> Linear:
        linear.write(world, linear_spec(share=1.0, neighbours=1000), tmp_path / "linear", effort)
        return Linear.load(tmp_path / "linear", linear_spec(share=1.0), world.catalogue)

    return fit


def test_scores_are_history_times_the_matrix(fitted) -> None:
    world = random_world()
    source, counts = fitted(world), dense_counts(world)
    rows = gram_of(world.history, 1, EVERYTHING)[0]
    matrix = np.zeros((30, 30))
    matrix[np.ix_(rows, rows)] = primal(counts[:, rows], linear.LAMBDA)
    for user in range(12):
        hits = source.retrieve(query(world.users[user], world.catalogue), 7)
        slow = counts[user] @ matrix
        scores = hits.scores_of(np.arange(30, dtype=np.int32))
        np.testing.assert_allclose(scores, slow, atol=1e-4 * np.abs(slow).max())  # int16 weights
        best = [row for row in np.argsort(-scores, kind="stable") if scores[row] > 0][:7]
        assert hits.rows.tolist() == best


def test_on_a_checkerboard_every_user_is_given_the_one_item_of_their_colour_they_lack(fitted) -> None:
    world = cut(checkerboard(20), catalogue([f"{i:02d}" for i in range(20)]))
    source = fitted(world)
    for user in range(20):
        hits = source.retrieve(query(world.users[user], world.catalogue, discover=True), 5)
        assert hits.rows[0] == user
        assert not np.isin(hits.rows, query(world.users[user], world.catalogue).history_rows).any()


def test_a_click_raises_the_neighbours_of_what_was_clicked(fitted) -> None:
    world = cut(checkerboard(20), catalogue([f"{i:02d}" for i in range(20)]), users=["new"])
    source = fitted(world)
    newcomer = world.users[world.users.index("new")]
    assert not len(source.retrieve(query(newcomer, world.catalogue), 5).rows)
    hits = source.retrieve(query(clicked(newcomer, "03"), world.catalogue), 5)
    assert len(hits.rows) == 5
    assert (hits.rows % 2 == 1).all()  # all of the colour of item 03


def test_contributions_sum_to_the_score_and_name_the_greatest_first(fitted) -> None:
    world = random_world()
    source = fitted(world, Effort(1, 10))
    asked = query(world.users[3], world.catalogue)
    hits = source.retrieve(asked, 5)
    for row, score in zip(hits.rows, hits.scores, strict=True):
        rows, parts = source.contributions(asked, int(row))
        assert parts.sum() == pytest.approx(score, rel=1e-4)
        assert (np.diff(parts) <= 0).all()
        assert np.isin(rows, asked.history_rows).all()


def test_fitting_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    world = random_world()
    for name in ("one", "two"):
        linear.write(world, linear_spec(share=1.0), tmp_path / name, EVERYTHING)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
