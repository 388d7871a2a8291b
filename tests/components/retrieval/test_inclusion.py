"""How often an item is drawn as an example: by hand, and by drawing."""

from itertools import permutations

import numpy as np
import pytest

from components.retrieval.tower_training import TowerExamples, Training, inclusion
from tests.components.retrieval.worlds import CUT_DAY, catalogue, cut


def by_hand(chance: list[float], drawn: int) -> np.ndarray:
    """Every order in which so many are drawn one by one, and its probability."""
    found = np.zeros(len(chance))
    for order in permutations(range(len(chance)), drawn):
        probability, left = 1.0, sum(chance)
        for one in order:
            probability, left = probability * chance[one] / left, left - chance[one]
        found[list(order)] += probability
    return found


@pytest.mark.parametrize("drawn", [1, 2, 3, 5, 7])
def test_probabilities_are_those_of_all_orders(drawn: int) -> None:
    chance = [0.1, 0.3, 0.3, 0.5, 0.8, 0.8, 1.2]
    found = inclusion(np.array(chance), np.zeros(7, np.int64), np.array([drawn]))
    assert found.sum() == pytest.approx(drawn)
    assert np.abs(np.log(found) - np.log(by_hand(chance, drawn))).max() < 0.12


def test_users_of_any_length_are_told_apart() -> None:
    """One gives two of four alike, one both of two, one none: the second's items are drawn twice as often."""
    user = np.array([0, 0, 0, 0, 1, 1, 2])
    assert inclusion(np.ones(7), user, np.array([2, 2, 0])) == pytest.approx([0.5] * 4 + [1, 1, 0])


def test_log_q_is_the_logarithm_of_how_often_items_are_drawn() -> None:
    """Users with 2 to 60 items, at most eight given: one share a user would count the shortest as much as the longest."""
    random = np.random.default_rng(0)
    events = [
        (f"{user:02d}", f"{item:03d}", float(CUT_DAY - random.integers(1, 300)))
        for user, size in enumerate((2, 3, 5, 9, 20, 40, 60))
        for item in random.permutation(80)[:size]
    ]
    training = Training(1, 1, users_a_batch=2, examples_a_user=8)
    examples = TowerExamples(cut(events, catalogue([f"{item:03d}" for item in range(80)])), training, random)
    times = np.zeros(80)
    for _ in range(1500):
        for batch in examples.batches():
            times += np.bincount(batch.target.numpy(), minlength=80)
    often = times > 300
    told = examples.log_q.numpy()[often] - np.log(times[often] / times.sum())
    assert often.sum() > 40
    assert np.abs(told).max() < 0.15
