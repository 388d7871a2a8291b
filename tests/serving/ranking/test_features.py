"""Features worked out by hand, then against a slow and obvious reference."""

import numpy as np
import pytest

from feature_repo.names import CROSS_FEATURES, TAUS_DAYS, cross_names, request_names
from serving.query import Candidates, Query, Request
from serving.ranking.affinity import DUE_LIMIT, NEVER_DAYS
from serving.ranking.features import cross_features, request_features
from serving.retrieval.buy_again import buy_again
from serving.retrieval.linear import linear
from serving.state.user_state import UserState
from serving.system import Learning
from tests.components.retrieval.worlds import CUT_DAY, catalogue

SOURCES = (buy_again(share=0.5), linear(share=0.5))
NAMES = cross_names([source.kind for source in SOURCES])
#                       a: dairy > milk > skim   b: dairy > milk > whole   c: dairy > cheese > blue   d: toys > ball > red
CATEGORY = np.array([[1, 2, 3], [1, 2, 4], [1, 5, 6], [7, 8, 9]])


def shop(**more: object):
    given = {
        "brand": np.array([1, 1, 2, 0], np.int32),
        "brand_names": ("unknown", "farm", "dale"),
        "price": np.array([1, 2, 4, np.nan], np.float32),
    }
    return catalogue("abcd", CATEGORY, places=("north", "south"), **(given | more))


def state(*events: tuple[str, float]) -> UserState:
    from serving.bundle.catalogue import item_key

    user = UserState("u", place="south")
    for item, day in events:
        user = user.with_positive(item_key(item), day)
    return user


def query(user: UserState, shop_=None, day: float = CUT_DAY) -> Query:
    return Query(Request("u", 4, day), user, shop() if shop_ is None else shop_, Learning())


def candidates(asked: Query, rows=(0, 1, 2, 3)) -> Candidates:
    rows = np.array(rows, np.int32)
    ranks = np.array([[0, np.inf], [1, 0], [np.inf, 1], [np.inf, 2]], np.float32)[: len(rows)]
    scores = np.where(np.isinf(ranks), 0, 2 - ranks).astype(np.float32)
    fused = (1 / (60 + ranks)).sum(axis=1).astype(np.float32)
    return Candidates(rows, scores, ranks, fused, np.isin(rows, asked.history_rows))


def column(asked: Query, name: str, rows=(0, 1, 2, 3)) -> np.ndarray:
    return cross_features(asked, candidates(asked, rows))[:, NAMES.index(name)]


def test_an_item_had_twice_ten_days_apart_is_due_ten_days_after():
    asked = query(state(("a", 80.0), ("a", 90.0)))
    assert column(asked, "own_log_count") == pytest.approx([np.log(3), 0, 0, 0])
    assert column(asked, "own_log_days_since_last") == pytest.approx([np.log(11), 0, 0, 0])
    assert column(asked, "own_log_mean_gap") == pytest.approx([np.log(11), 0, 0, 0])
    assert column(asked, "own_due") == pytest.approx([np.log(2), 0, 0, 0])  # one gap gone by since the last: exactly due
    assert column(asked, "own_once") == pytest.approx([0, 0, 0, 0])
    decayed = np.exp(-20 / TAUS_DAYS[0]) + np.exp(-10 / TAUS_DAYS[0])
    assert column(asked, "own_decayed_15") == pytest.approx([np.log1p(decayed), 0, 0, 0])


def test_shares_of_the_history_are_told_at_every_level_of_the_category():
    asked = query(state(("a", CUT_DAY), ("c", CUT_DAY), ("c", CUT_DAY), ("d", CUT_DAY)))  # weights 1, 2, 1 of 4
    assert column(asked, "share_category_0") ** 2 == pytest.approx([3 / 4, 3 / 4, 3 / 4, 1 / 4])
    assert column(asked, "share_category_1") ** 2 == pytest.approx([1 / 4, 1 / 4, 2 / 4, 1 / 4])
    assert column(asked, "share_category_2") ** 2 == pytest.approx([1 / 4, 0, 2 / 4, 1 / 4])
    assert column(asked, "log_items_category_1") == pytest.approx(np.log([2, 2, 2, 2]))
    assert column(asked, "share_brand") ** 2 == pytest.approx([1 / 4, 1 / 4, 2 / 4, 0])  # d has no known brand


def test_a_brand_is_weighed_within_the_category():
    asked = query(state(("a", CUT_DAY), ("b", CUT_DAY), ("c", CUT_DAY)), shop(brand=np.array([1, 2, 2, 0], np.int32)))
    assert column(asked, "brand_within_category") == pytest.approx([1 / 2, 1 / 2, 1, 0])


def test_prices_are_beside_what_the_user_pays_in_the_category():
    asked = query(state(("a", CUT_DAY)))  # pays 1 for milk; never bought cheese; d has no price
    assert column(asked, "price_relative") == pytest.approx([0, np.log(2), 0, 0])
    assert column(asked, "price_known") == pytest.approx([1, 1, 0, 0])


def test_the_plan_is_read_at_the_users_store_for_the_week_asked_about():
    plan = np.zeros((1, 2, 4), np.uint8)
    plan[0, 1, 2] = 1  # south: c on display
    asked = shop(plan_display=plan)
    assert column(query(state(("a", 90.0)), asked), "display_here") == pytest.approx([0, 0, 1, 0])
    assert column(query(state(("a", 90.0)), asked, day=CUT_DAY + 8), "display_here") == pytest.approx([0, 0, 0, 0])  # next week: no plan


def test_a_click_counts_for_its_item_category_and_brand():
    user = state(("d", 50.0)).with_session_event(int(shop().keys[0]), "click", CUT_DAY)
    asked = query(user)
    assert column(asked, "session_item") == pytest.approx([np.log(1.6), 0, 0, 0])  # a click weighs .6
    assert column(asked, "session_brand") == pytest.approx([np.log(1.6), np.log(1.6), 0, 0])
    assert column(asked, "share_category_1")[1] > 0  # and moves the affinity for milk


def test_sources_come_in_the_order_of_the_system_file():
    asked = query(state())
    assert column(asked, "rank_buy_again") == pytest.approx([1, 60 / 61, 0, 0])
    assert column(asked, "rank_linear") == pytest.approx([0, 1, 60 / 61, 60 / 62])
    assert column(asked, "score_linear") == pytest.approx([0, np.log(3), np.log(2), 0])
    assert column(asked, "sources") == pytest.approx([1, 2, 1, 1])


def test_names_and_columns_are_as_many():
    asked = query(state(("a", 90.0)))
    assert cross_features(asked, candidates(asked)).shape == (4, len(NAMES))
    assert len(set(NAMES)) == len(NAMES) == len(CROSS_FEATURES) + 3 * len(SOURCES)
    assert len(request_features(asked)) == len(request_names(()))


def test_a_user_nobody_knows_has_finite_features():
    asked = query(UserState(""))
    assert np.isfinite(cross_features(asked, candidates(asked))).all()
    assert np.isfinite(request_features(asked)).all()


def test_no_candidates_have_no_features():
    asked = query(state(("a", 90.0)))
    assert cross_features(asked, candidates(asked).take(np.empty(0, np.intp))).shape == (0, len(NAMES))


def test_candidates_in_another_order_have_the_same_features():
    asked = query(state(("a", 80.0), ("a", 95.0), ("c", 60.0)))
    pool = candidates(asked)
    order = np.array([2, 0, 3, 1])
    assert np.array_equal(cross_features(asked, pool)[order], cross_features(asked, pool.take(order)))


@pytest.mark.parametrize("seed", range(5))
def test_category_rhythm_is_that_of_a_loop_over_the_history(seed: int):
    rng = np.random.default_rng(seed)
    events = [(str(rng.choice(list("abcd"))), float(rng.uniform(0, CUT_DAY))) for _ in range(12)]
    asked = query(state(*sorted(events, key=lambda event: event[1])))
    for row, code in enumerate(CATEGORY[:, 2]):
        days = sorted(day for item, day in events if CATEGORY["abcd".index(item), 2] == code)
        age = CUT_DAY - days[-1] if days else NEVER_DAYS
        assert column(asked, "log_events_category_2")[row] == pytest.approx(np.log1p(len(days)), rel=1e-5)
        assert column(asked, "log_days_since_category_2")[row] == pytest.approx(np.log1p(age), rel=1e-5)
        gap = (days[-1] - days[0]) / (len(days) - 1) if len(days) > 1 else 0
        due = np.log1p(min(age / max(gap, 1), DUE_LIMIT)) if len(days) > 1 else 0
        assert column(asked, "due_category_2")[row] == pytest.approx(due, rel=1e-4, abs=1e-6)
