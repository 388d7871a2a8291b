"""The full path over the tiny bundle, whose scores can be worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.query import Request
from serving.recommender import Recommender
from serving.state.user_state import UserState
from tests.serving.tiny_bundle import DAY, ITEMS, USER_FEATURES, load_tiny, states, system

USERS = states()


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(load_tiny(tmp_path_factory.mktemp("bundle")), system())


def test_what_the_user_has_had_comes_first_with_a_sentence(recommender: Recommender) -> None:
    # u03 has had 3 (three times, 9 days ago), 15 and 27 (30 days ago); the repeat head weighs more than twice the discover head
    answer = recommender.recommend(Request("u03", 10, DAY, "r"), USERS[3])
    assert {item.item_id for item in answer.items[:3]} == {"i003", "i015", "i027"}
    said = {item.item_id: item.reason for item in answer.items}
    assert said["i003"] == "You bought it 3 times, last 9 days ago"
    assert said["i015"] == "You bought it 30 days ago"
    assert all("buy_again" in item.sources for item in answer.items[:3])
    assert "Often bought with" in " ".join(said.values())


def test_the_answer_is_as_long_as_asked_and_scores_never_rise(recommender: Recommender) -> None:
    for k in (1, 7, 10, 60, 237):
        answer = recommender.recommend(Request("u05", k, DAY), USERS[5])
        scores = [item.score for item in answer.items]
        assert len(answer.items) == k
        assert len({item.row for item in answer.items}) == k
        assert scores == sorted(scores, reverse=True)  # no order rule in the tiny system moves an item up, but a cap may move one down


def test_more_than_the_catalogue_allows_is_all_of_it(recommender: Recommender) -> None:
    answer = recommender.recommend(Request("u05", 1000, DAY), USERS[5])
    assert len(answer.items) == ITEMS - 3  # recalled, out of stock, blocked


def test_the_same_question_gives_the_same_list(recommender: Recommender) -> None:
    first, second = (recommender.recommend(Request("u07", 30, DAY), USERS[7]) for _ in range(2))
    assert first.items == second.items


def test_discovering_leaves_out_what_the_user_has_had(recommender: Recommender) -> None:
    answer = recommender.recommend(Request("u03", 237, DAY, discover=True), USERS[3])
    assert {3, 15, 27} & {item.row for item in answer.items} == set()
    assert len(answer.items) == ITEMS - 3 - 3


def test_a_stranger_gets_the_popular_list_of_the_region(recommender: Recommender) -> None:
    answer = recommender.recommend(Request("nobody", 10, DAY, region="west"), UserState("nobody"))
    assert all(item.row > 200 for item in answer.items[:5])  # the list of "west" is the catalogue backwards
    assert answer.items[0].reason == "Popular near you"


def test_the_stages_joined_by_hand_give_the_same_list(recommender: Recommender) -> None:
    request = Request("u02", 10, DAY, "r")
    query = recommender.query(request, USERS[2])
    pool = recommender.retrieve(query)  # elsewhere
    scores = recommender.scoring.rank(
        recommender.query(request, USERS[2]), recommender.user_side(recommender.query(request, USERS[2])), pool
    )  # elsewhere again
    arranged = recommender.arrange(query, recommender.scoring.order(pool, scores))
    assert arranged.rows.tolist() == [item.row for item in recommender.recommend(request, USERS[2]).items]


def test_the_order_is_heavy_then_light(recommender: Recommender) -> None:
    query = recommender.query(Request("u02", 80, DAY), USERS[2])
    pool = recommender.retrieve(query)
    scores = recommender.scoring.rank(query, recommender.user_side(query), pool)
    ranked = recommender.scoring.order(pool, scores)
    heavy = dict(zip(pool.rows[scores.kept].tolist(), scores.heavy.tolist(), strict=True))  # type: ignore[union-attr]
    light = dict(zip(pool.rows.tolist(), scores.light.tolist(), strict=True))
    rows = ranked.rows.tolist()
    assert rows[:30] == sorted(heavy, key=lambda row: (-heavy[row], row))
    assert rows[30:] == sorted(set(light) - set(heavy), key=lambda row: (-light[row], row))


def test_user_features_of_another_schema_are_not_read(recommender: Recommender) -> None:
    strange = replace(USERS[1], schema_key=12345, features=np.full(2, 1e9, np.float32))
    assert not len(recommender.query(Request("u01", 10, DAY), strange).state.features)
    assert len(recommender.query(Request("u01", 10, DAY), USERS[1]).state.features) == len(USER_FEATURES)


def test_a_click_changes_the_next_list(recommender: Recommender) -> None:
    request = Request("u03", 10, DAY)
    before = recommender.recommend(request, USERS[3])
    key = int(recommender.catalogue.keys[100])
    after = recommender.recommend(request, USERS[3].with_session_event(key, "add_to_cart", DAY - 0.001))
    assert [item.row for item in before.items] != [item.row for item in after.items]


def test_the_trace_holds_what_explains_the_answer(recommender: Recommender, tmp_path: Path) -> None:
    trace = recommender.recommend(Request("u03", 10, DAY, "r"), USERS[3]).trace
    assert len(trace.candidates) == len(trace.scores.light) >= 100
    assert len(trace.scores.kept) == len(trace.scores.heavy) == 30
    assert trace.rung == "full"


def test_a_hybrid_system_ranks_the_users_batch_list_anew(recommender: Recommender) -> None:
    hybrid = Recommender(recommender.bundle, replace(system(), hybrid=True))
    listed = set(recommender.bundle.fallback.user("u03").tolist())  # rows 60 to 109
    answer = hybrid.recommend(Request("u03", 10, DAY), USERS[3])
    assert {item.row for item in answer.items} <= listed
    assert answer.items[0].sources == ("batch",)
    bought = int(recommender.catalogue.keys[70])
    after = hybrid.recommend(Request("u03", 10, DAY), USERS[3].with_positive(bought, DAY - 1))
    assert after.items[0].item_id == "i070"  # in real time: what was bought since the batch is ranked by the repeat head
    stranger = hybrid.recommend(Request("nobody", 10, DAY), UserState("nobody"))
    assert "trending" in stranger.items[0].sources  # without a list, all sources are asked
