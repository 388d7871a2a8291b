"""Next-item figures, with a pencil; and V-SKNN finds what follows where popularity cannot."""

import numpy as np
import pytest

from components.evaluation.next_item import next_item
from components.retrieval.sessions import table
from serving.retrieval.sessions import Sessions, sessions
from serving.retrieval.top_k import descending


def test_figures_by_hand():
    """Asked after [1] and [1, 2], then after [3]; the list is always 2, 9, 4: hits are yes, no, yes, at places 1 and 3."""
    found = next_item(lambda _: np.array([2, 9, 4]), [np.array([1, 2, 7]), np.array([3, 4]), np.array([5])], k=3)
    assert (found.questions, found.sessions) == (3, 2)
    assert found.hit_rate == pytest.approx(2 / 3)
    assert found.mrr == pytest.approx((1 + 1 / 3) / 3)
    assert found.hit_rate_error == pytest.approx(np.sqrt(2 * ((1 - 4 / 3) ** 2 + (1 - 2 / 3) ** 2)) / 3)
    assert next_item(lambda _: np.array([2, 9, 4]), [np.array([3, 4])], k=2).hit_rate == 0


def test_without_a_second_item_there_is_nothing_to_judge_by():
    with pytest.raises(ValueError, match="no session has two items"):
        next_item(lambda _: np.empty(0, np.int32), [np.array([1])])


def test_neighbours_foretell_what_popularity_cannot():
    """Sessions walk along one of 30 topics of 10 items, each step to one of the two that follow: two in three steps are known."""
    made, count, topics, size = np.random.default_rng(1), 3000, 30, 10
    logged = []
    for _ in range(count):
        at, topic = made.integers(size), made.integers(topics)
        steps = np.cumsum(made.integers(1, 3, 4))
        logged.append(np.array([topic * size + (at + step) % size for step in (0, *steps)]))
    whole = [np.array(list(dict.fromkeys(session.tolist())), np.int32) for session in logged]
    past, future = whole[:2700], whole[2700:]
    owner = np.repeat(np.arange(len(past)), [len(one) for one in past])
    days = owner + np.concatenate([np.arange(len(one)) for one in past]) / 100
    source = Sessions(sessions(share=1.0), table(owner, np.concatenate(past), days, topics * size, 1.0))

    def neighbours(so_far):
        rows, scores = source.scored(so_far)
        return rows[descending(scores)]

    popular = np.argsort(-np.bincount(np.concatenate(past)), kind="stable")
    found, plain = next_item(neighbours, future, k=5), next_item(lambda _: popular, future, k=5)
    assert found.hit_rate - 2 * found.hit_rate_error > 0.6
    assert plain.hit_rate + 2 * plain.hit_rate_error < 0.1
