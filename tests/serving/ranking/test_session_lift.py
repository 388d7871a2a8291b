"""What a user looks at a moment ago counts at once, and only for who looked."""

import numpy as np
import pytest

from serving.bundle.bundle import Bundle
from serving.query import Request
from serving.ranking.features import cross_features
from serving.ranking.scoring import session_lift
from serving.recommender import Recommender
from tests.serving import tiny_bundle

LOOKED_AT = 33  # of category 9; u00 buys of category 0


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    return Recommender(Bundle.load(tiny_bundle.write_tiny(tmp_path_factory.mktemp("lift"))), tiny_bundle.system())


def ranks(recommender, state):
    query = recommender.query(Request(state.user_id, 10, tiny_bundle.DAY), state)
    pool = recommender.retrieve(query)
    ranked = recommender.scoring.order(pool, recommender.scoring.rank(query, recommender.user_side(query), pool))
    return {row: place for place, row in enumerate(ranked.rows.tolist())}


def test_a_click_makes_the_odds_of_the_item_about_tenfold_and_an_older_one_less(recommender):
    state, key = tiny_bundle.states()[0], int(tiny_bundle.catalogue().keys[LOOKED_AT])

    def odds(days_ago):
        clicked = state.with_session_event(key, "click", tiny_bundle.DAY - days_ago)
        query = recommender.query(Request(state.user_id, 10, tiny_bundle.DAY), clicked)
        pool = recommender.retrieve(query)
        cross = cross_features(query, pool)
        return float(np.exp(session_lift(cross)[pool.rows == LOOKED_AT])[0])

    assert 10 < odds(0.0) < 25  # the item itself, its type and its brand together
    assert 1 < odds(1.0) < odds(0.0)
    assert odds(5.0) == 1  # beyond ten times its decay nothing is left of a look


def test_what_was_clicked_moves_up_and_without_a_click_nothing_is_lifted(recommender):
    state, key = tiny_bundle.states()[0], int(tiny_bundle.catalogue().keys[LOOKED_AT])
    before = ranks(recommender, state)
    after = ranks(recommender, state.with_session_event(key, "click", tiny_bundle.DAY))
    assert after[LOOKED_AT] < before[LOOKED_AT]
    again = ranks(recommender, state.with_session_event(key, "click", tiny_bundle.DAY - 30))
    assert again == before
