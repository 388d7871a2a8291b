"""Implicit ALS: a turn's row is the minimum in closed form, every turn lowers the objective, blocks change nothing."""

import numpy as np
import pytest
import scipy.sparse

from components.retrieval import als


def made(users: int = 30, items: int = 20, seed: int = 0):
    random = np.random.default_rng(seed)
    dense = np.where(random.random((users, items)) < 0.3, random.uniform(0.5, 3, (users, items)), 0).astype(np.float32)
    return scipy.sparse.csr_matrix(dense), dense, random


def objective(users: np.ndarray, items: np.ndarray, dense: np.ndarray, weight: float) -> float:
    """Equation 3 of the paper, cell by cell."""
    total = weight * (np.square(users).sum() + np.square(items).sum())
    for user in range(dense.shape[0]):
        for item in range(dense.shape[1]):
            total += (1 + dense[user, item]) * (float(dense[user, item] > 0) - users[user] @ items[item]) ** 2
    return float(total)


def test_enough_steps_are_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "STEPS", 30)
    counted, dense, random = made()
    other, own = random.normal(size=(20, 4)).astype(np.float32), np.zeros((30, 4), np.float32)
    als._improve(own, other, counted, weight=2.0)
    for user in range(30):
        confidence, wanted = np.diag(1 + dense[user]), (dense[user] > 0).astype(float)
        exact = np.linalg.solve(other.T @ confidence @ other + 2.0 * np.eye(4), other.T @ confidence @ wanted)
        np.testing.assert_allclose(own[user], exact, rtol=1e-3, atol=1e-4)


def test_every_turn_lowers_the_objective() -> None:
    counted, dense, random = made()
    users, items = (random.normal(0, 0.1, (size, 4)).astype(np.float32) for size in dense.shape)
    told = [objective(users, items, dense, 1.0)]
    for _ in range(4):
        als._improve(users, items, counted, 1.0)
        told.append(objective(users, items, dense, 1.0))
        als._improve(items, users, counted.T.tocsr(), 1.0)
        told.append(objective(users, items, dense, 1.0))
    assert (np.diff(told) < 1e-3).all()
    assert told[-1] < 0.5 * told[0]


def test_blocks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = made()[0]
    at_once = als.item_factors(counted, 4, 3, 1.0)
    monkeypatch.setattr(als, "ENTRIES", 10)
    np.testing.assert_allclose(als.item_factors(counted, 4, 3, 1.0), at_once, rtol=1e-4, atol=1e-5)
    assert als.item_factors(counted, 4, 3, 1.0).tobytes() == als.item_factors(counted, 4, 3, 1.0).tobytes()


def test_rows_without_an_entry_are_nothing_and_blocks_hold_every_row_once() -> None:
    counted = scipy.sparse.csr_matrix(np.array([[1, 0, 2], [0, 0, 0], [3, 0, 0]], np.float32))
    factors = als.item_factors(counted, 2, 20, 1.0)
    np.testing.assert_allclose(factors[1], 0, atol=1e-4)
    assert als.blocks(np.array([0, 5, 5, 6, 20, 21]), 4) == [(0, 1), (1, 4), (4, 5)]
    assert als.blocks(np.zeros(4, int), 4) == [(0, 3)]
