"""One plain sentence an item, in the words of the system."""

from dataclasses import replace

import numpy as np
import pytest

from serving.query import Query, Request
from serving.recommender import Recommender
from serving.retrieval.reasons import Reasons
from serving.state.user_state import UserState
from tests.serving.tiny_bundle import DAY, load_tiny, states, system

STATES = states()


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_tiny(tmp_path_factory.mktemp("bundle")), system())


def query(recommender: Recommender, state: UserState, **request: object) -> Query:
    return recommender.query(Request(state.user_id, 10, DAY, **request), state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "days_ago", "sentence"),
    [
        (1, 0.2, "You bought it today"),
        (1, 1.5, "You bought it yesterday"),
        (1, 9, "You bought it 9 days ago"),
        (6, 9, "You bought it 6 times, last 9 days ago"),
    ],
)
def test_what_was_had_before_is_said_first(recommender: Recommender, count: int, days_ago: float, sentence: str) -> None:
    state = UserState("u")
    for _ in range(count):
        state = state.with_positive(int(recommender.catalogue.keys[7]), DAY - days_ago)
    assert recommender.reasons.sentence(query(recommender, state), 7, ("trending",)) == sentence


def test_a_neighbour_in_the_history_is_named_by_its_title(recommender: Recommender) -> None:
    asked = query(recommender, STATES[3])  # 4 is the nearest neighbour of 3
    assert recommender.reasons.sentence(asked, 4, ("linear",)) == "Often bought with Thing 3, which you bought"


def test_a_neighbour_in_the_session_was_looked_at(recommender: Recommender) -> None:
    state = UserState("u").with_session_event(int(recommender.catalogue.keys[50]), "click", DAY - 0.01)
    assert recommender.reasons.sentence(query(recommender, state), 51, ("linear",)) == "Often bought with Thing 50, which you looked at"


def test_a_promotion_is_named_at_the_users_own_store_only(recommender: Recommender) -> None:
    here, elsewhere = (query(recommender, STATES[3], place=place) for place in ("north", "south"))
    assert recommender.reasons.sentence(here, 29, ("category_promotion",)) == "On display at your store this week"
    assert recommender.reasons.sentence(elsewhere, 29, ("category_promotion",)) == "Popular in C5"


def test_what_nothing_is_known_of_is_popular(recommender: Recommender) -> None:
    assert recommender.reasons.sentence(query(recommender, UserState("u")), 5, ("trending",)) == "Popular right now"
    assert recommender.reasons.sentence(query(recommender, UserState("u"), region="east"), 5, ()) == "Popular near you"


def test_sources_are_told_best_rank_first_and_a_row_outside_the_pool_is_popular(recommender: Recommender) -> None:
    asked = query(recommender, STATES[3])
    pool = recommender.retrieve(asked)
    inside, outside = int(pool.rows[0]), 230
    assert outside not in pool.rows
    told = recommender.reasons.tell(asked, pool, np.array([inside, outside], np.int32))
    ranks = {kind: rank for kind, rank in zip(recommender.reasons.kinds, pool.source_ranks[0], strict=True) if np.isfinite(rank)}
    assert list(told[0][0]) == sorted(ranks, key=lambda kind: ranks[kind])
    assert told[1][0] == ("popular",)


def test_a_long_list_names_the_nearest_item_of_its_first_entries_only(recommender: Recommender) -> None:
    reasons = [item.reason for item in recommender.recommend(Request("u03", 100, DAY), STATES[3]).items]
    assert any(reason.startswith("Often bought with Thing") for reason in reasons[:50])
    assert not any("Thing" in reason for reason in reasons[50:])
    assert all(reasons)


def test_another_system_speaks_in_its_own_words(recommender: Recommender) -> None:
    reasons = Reasons(replace(system(), verb="watched"), recommender.sources)
    assert reasons.sentence(query(recommender, STATES[3]), 15, ()) == "You watched it 30 days ago"
