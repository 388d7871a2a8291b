"""Of whom little is known the fused rank decides; from the second visit on the rankers do."""

import numpy as np
import pytest

from serving.bundle.bundle import Bundle
from serving.query import Request
from serving.recommender import Recommender
from serving.state.user_state import UserState
from tests.serving import tiny_bundle


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    return Recommender(Bundle.load(tiny_bundle.write_tiny(tmp_path_factory.mktemp("few_visits"))), tiny_bundle.system())


def after(visits):
    """A user who bought two items at each of so many visits."""
    state = UserState("new", place="north")
    for visit in range(visits):
        for item in (2 * visit, 2 * visit + 1):
            state = state.with_positive(int(tiny_bundle.catalogue().keys[item]), tiny_bundle.DAY - 30 + visit)
    return state


def ranked(recommender, state):
    query = recommender.query(Request(state.user_id, 10, tiny_bundle.DAY), state)
    pool = recommender.retrieve(query)
    return pool, recommender.scoring.order(pool, recommender.scoring.rank(query, recommender.user_side(query), pool))


def test_visits_are_moments_not_items(recommender):
    asked = [recommender.query(Request("new", 10, tiny_bundle.DAY), after(visits)) for visits in (0, 1, 2)]
    assert [query.few_visits for query in asked] == [True, True, False]


def test_a_newcomers_list_is_in_the_order_of_the_fused_rank(recommender):
    pool, found = ranked(recommender, after(1))
    assert found.rows.tolist() == pool.rows[np.lexsort((pool.rows, -pool.fused))].tolist()
    assert np.all(np.diff(found.scores) <= 0)


def test_a_click_of_a_newcomer_counts_too(recommender):
    _, before = ranked(recommender, after(1))
    item = int(before.rows[20])
    _, found = ranked(recommender, after(1).with_session_event(int(tiny_bundle.catalogue().keys[item]), "click", tiny_bundle.DAY))
    assert found.rows.tolist().index(item) < 5


@pytest.mark.parametrize("visits", [0, 1])
@pytest.mark.parametrize("hours", [0, 6, 24])
def test_what_a_newcomer_looked_at_does_not_fall_behind_what_the_look_brings_in(recommender, visits, hours):
    _, before = ranked(recommender, after(visits))
    for place in (0, 1, 4, 9, 40):
        item = int(before.rows[place])
        looked = after(visits).with_session_event(int(tiny_bundle.catalogue().keys[item]), "click", tiny_bundle.DAY - hours / 24)
        pool, found = ranked(recommender, looked)
        assert found.rows.tolist().index(item) <= place
        brought = recommender.query(Request("new", 10, tiny_bundle.DAY), looked).session[1][0] if hours < 24 else 0
        assert not brought or found.rows[0] == item
        assert np.isfinite(found.scores).all()
        assert len(pool) == len(found.rows)


def test_from_the_second_visit_on_the_rankers_decide(recommender):
    pool, found = ranked(recommender, after(2))
    assert found.rows.tolist() != pool.rows[np.lexsort((pool.rows, -pool.fused))].tolist()
