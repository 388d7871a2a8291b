"""Where only new items are asked for, the rankers and the fused rank of the sources have an equal say."""

import numpy as np
import pytest

from serving.bundle.bundle import Bundle
from serving.query import Request
from serving.ranking.scoring import rank_share
from serving.recommender import Recommender
from tests.serving import tiny_bundle


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    return Recommender(Bundle.load(tiny_bundle.write_tiny(tmp_path_factory.mktemp("discover"))), tiny_bundle.system())


def slow_share(scores):
    places = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    return [1 / (60 + places.index(at)) for at in range(len(scores))]


def test_a_rank_share_is_one_over_sixty_plus_the_rank_and_ties_go_by_position():
    assert rank_share(np.array([0.5, 0.9, 0.5], np.float32)) == pytest.approx([1 / 61, 1 / 60, 1 / 62])


def test_discoveries_are_fused_from_both_orders_and_hold_nothing_the_user_has_had(recommender):
    state = tiny_bundle.states()[3]
    query = recommender.query(Request(state.user_id, 10, tiny_bundle.DAY, discover=True), state)
    side, pool = recommender.user_side(query), recommender.retrieve(query)
    scores = recommender.scoring.rank(query, side, pool)
    plain = recommender.rankers.light(side, pool.rows, scores.cross)[:, 1]
    expected = np.array(slow_share(plain)) + slow_share(pool.fused)
    assert scores.light == pytest.approx(expected)
    ranked = recommender.scoring.order(pool, scores)
    assert not set(ranked.rows.tolist()) & set(query.history_rows.tolist())
    heavy = recommender.rankers.heavy(side, pool.rows[scores.kept], scores.cross[scores.kept])[:, 1]
    best = np.array(slow_share(heavy)) + np.array(slow_share(pool.fused))[scores.kept]
    assert ranked.scores[0] == pytest.approx(best.max())
    assert np.all(np.diff(ranked.scores) <= 0)


def test_an_ordinary_list_is_the_rankers_alone(recommender):
    state = tiny_bundle.states()[3]
    query = recommender.query(Request(state.user_id, 10, tiny_bundle.DAY), state)
    assert recommender.scoring.rank(query, recommender.user_side(query), recommender.retrieve(query)).prior is None
