"""One plain sentence an item, in the words of the system, of what moved it most."""

from dataclasses import replace

import numpy as np
import pytest

from serving.query import Query, Request
from serving.recommender import Recommender
from serving.resilience.ladder import Ladder
from serving.retrieval.reasons import HAD, PROMOTION, SESSION, SOURCES, TASTE
from serving.state.user_state import UserState
from tests.serving.tiny_bundle import DAY, load_tiny, states, system

STATES = states()
KINDS = system().kinds
LINEAR, TRENDING = KINDS.index("linear"), KINDS.index("trending")


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_tiny(tmp_path_factory.mktemp("bundle")), system())


def query(recommender: Recommender, state: UserState, **request: object) -> Query:
    return recommender.query(Request(state.user_id, 10, DAY, **request), state)  # type: ignore[arg-type]


def clicked(recommender: Recommender, state: UserState, row: int, kind: str = "click", day: float = DAY - 0.01) -> UserState:
    return state.with_session_event(int(recommender.catalogue.keys[row]), kind, day)


def reason_of(recommender: Recommender, state: UserState, row: int, k: int = 10) -> str:
    return next(item.reason for item in recommender.recommend(Request(state.user_id, k, DAY), state).items if item.row == row)


@pytest.mark.parametrize(
    ("count", "days_ago", "sentence"),
    [
        (1, 0.2, "You bought it today"),
        (1, 1.5, "You bought it yesterday"),
        (1, 9, "You bought it 9 days ago"),
        (6, 9, "You bought it 6 times, last 9 days ago"),
    ],
)
def test_what_was_had_before_is_said_where_nothing_else_moved_it_more(
    recommender: Recommender, count: int, days_ago: float, sentence: str
) -> None:
    state = UserState("u")
    for _ in range(count):
        state = state.with_positive(int(recommender.catalogue.keys[7]), DAY - days_ago)
    asked = query(recommender, state)
    assert recommender.reasons.sentence(asked, 7, (TRENDING,), ("trending",)) == sentence
    for part in (HAD, TASTE, SOURCES):  # whatever of the history spoke for it
        assert recommender.reasons.sentence(asked, 7, (TRENDING,), ("trending",), {part: 2.0, SESSION: 1.0}) == sentence


def test_a_neighbour_in_the_history_is_named_by_its_title(recommender: Recommender) -> None:
    asked = query(recommender, STATES[3])  # 4 is the nearest neighbour of 3
    assert recommender.reasons.sentence(asked, 4, (LINEAR,), ("linear",)) == "Often bought with Thing 3, which you bought"


def test_a_neighbour_in_the_session_was_looked_at(recommender: Recommender) -> None:
    asked = query(recommender, clicked(recommender, UserState("u"), 50))
    assert recommender.reasons.sentence(asked, 51, (LINEAR,), ("linear",)) == "Often bought with Thing 50, which you looked at"


@pytest.mark.parametrize(
    ("kind", "days_ago", "sentence"),
    [
        ("click", 0.01, "You looked at it today"),
        ("add_to_cart", 1.2, "You put it in your cart yesterday"),
        ("like", 0.01, "You liked it today"),
    ],
)
def test_a_clicked_item_is_there_because_of_the_click_also_when_it_is_on_display(
    recommender: Recommender, kind: str, days_ago: float, sentence: str
) -> None:
    state = clicked(recommender, replace(STATES[3], place="north"), 29, kind, DAY - days_ago)  # north displays item 29 this week
    assert reason_of(recommender, state, 29) == sentence


def test_what_is_like_the_clicked_item_names_it(recommender: Recommender) -> None:
    asked = query(recommender, clicked(recommender, UserState("u"), 50))
    alike = next(row for row in range(240) if row != 50 and recommender.catalogue.category[row, 2] == recommender.catalogue.category[50, 2])
    said = recommender.reasons.sentence(asked, alike, (TRENDING,), ("trending",), {SESSION: 0.5, SOURCES: 0.4})
    assert said == "Like Thing 50, which you looked at today"


def test_a_look_that_moved_it_less_than_something_else_is_not_named(recommender: Recommender) -> None:
    asked = query(recommender, clicked(recommender, STATES[3], 4))
    said = recommender.reasons.sentence(asked, 4, (LINEAR,), ("linear",), {SESSION: 0.4, SOURCES: 0.5})
    assert said.startswith("Often bought with")


def test_a_dislike_is_no_look(recommender: Recommender) -> None:
    asked = query(recommender, clicked(recommender, UserState("u", region="east"), 5, "dislike"))
    assert "looked" not in recommender.reasons.sentence(asked, 5, (), ("popular",), {SESSION: 1.0})


def test_a_promotion_is_named_at_the_users_own_store_only(recommender: Recommender) -> None:
    here, elsewhere = (query(recommender, STATES[3], place=place) for place in ("north", "south"))
    told = [recommender.reasons.sentence(asked, 29, (TRENDING,), ("trending",), {PROMOTION: 1.0}) for asked in (here, elsewhere)]
    assert told[0] == "On display at your store this week"
    assert "store this week" not in told[1]


def test_what_nothing_is_known_of_is_popular_where_it_is(recommender: Recommender) -> None:
    fallback, nobody = recommender.bundle.fallback, UserState("u")
    of_west, everywhere = int(fallback.popular("west")[0]), int(fallback.static()[0])
    assert recommender.reasons.sentence(query(recommender, nobody, region="west"), of_west, (), ("popular",)) == "Popular near you"
    assert recommender.reasons.sentence(query(recommender, nobody), everywhere, (), ("popular",)) == "Popular right now"
    neither = next(row for row in range(240) if row not in fallback.static() and row not in fallback.popular("west"))
    assert recommender.reasons.sentence(query(recommender, nobody, region="west"), neither, (), ("popular",)) == "From the whole range"


def test_sources_are_told_best_rank_first_and_a_row_outside_the_pool_is_popular(recommender: Recommender) -> None:
    asked = query(recommender, STATES[3])
    pool = recommender.retrieve(asked)
    inside, outside = int(pool.rows[0]), 230
    assert outside not in pool.rows
    told = recommender.reasons.tell(asked, pool, np.array([inside, outside], np.int32))
    ranks = {kind: rank for kind, rank in zip(recommender.reasons.kinds, pool.source_ranks[0], strict=True) if np.isfinite(rank)}
    assert list(told[0][0]) == sorted(ranks, key=lambda kind: ranks[kind])
    assert told[1][0] == ("popular",)


def test_the_source_that_gave_most_of_the_fused_rank_speaks_not_the_one_of_the_best_rank(recommender: Recommender) -> None:
    asked = query(recommender, STATES[3])  # linear weighs .1 / (10 + rank), trending .02 / (60 + rank)
    pool = recommender.retrieve(asked)
    ranks = np.full(pool.source_ranks.shape, np.inf, np.float32)
    ranks[:, LINEAR], ranks[:, TRENDING] = 5, 0
    at = int(np.flatnonzero(pool.rows == 4)[0])
    told = recommender.reasons.tell(asked, replace(pool, source_ranks=ranks), pool.rows[at : at + 1])
    assert told == [(("trending", "linear"), "Often bought with Thing 3, which you bought")]


@pytest.mark.parametrize(("failing", "rung", "source"), [("retrieve", "cached", "cached"), ("lists", "linear", "linear")])
def test_a_lower_rung_says_where_its_list_is_from_and_nothing_that_is_not_so(tmp_path, failing: str, rung: str, source: str) -> None:  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise OSError("gone")

    broken = Recommender(load_tiny(tmp_path), system())
    broken.retrieve = fail  # type: ignore[method-assign,assignment]
    if failing == "lists":
        broken.bundle.__dict__["fallback"] = replace(
            broken.bundle.fallback, user_ids=np.empty(0, "S1"), user_rows=np.empty((0, 1), np.int32)
        )
    answer = Ladder(broken).answer(Request("u03", 10, DAY), STATES[3])
    assert answer.degraded is not None
    assert answer.degraded["rung"] == rung
    listed = [item for item in answer.items if item.sources == (source,)]
    assert listed
    assert all(not item.reason.startswith("Popular") for item in listed)


def test_a_long_list_has_a_sentence_for_each(recommender: Recommender) -> None:
    assert all(item.reason for item in recommender.recommend(Request("u03", 100, DAY), STATES[3]).items)


def test_another_system_speaks_in_its_own_words(recommender: Recommender) -> None:
    asked = replace(query(recommender, STATES[3]), verb="watched")
    assert recommender.reasons.sentence(asked, 15, (), ("popular",)) == "You watched it 30 days ago"
