"""What sources read of a user and say of items, on tables small enough to work out by hand. All of it by numpy."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from feature_repo.names import TAUS_DAYS
from serving.native import kernel
from serving.query import Query, Request
from serving.retrieval.buy_again import BuyAgain, Habits, buy_again
from serving.retrieval.category_promotion import CategoryPromotion, Kinds, Offers, category_promotion
from serving.retrieval.interest import counts, interest, mix_for, positions
from serving.retrieval.linear import Linear, Neighbours, linear
from serving.retrieval.source import Given
from serving.retrieval.trending import Lists, Trending, trending
from serving.state.user_state import UserState
from serving.system import Learning
from tests.components.retrieval.worlds import CUT_DAY, catalogue

ITEMS = catalogue([f"{number:02d}" for number in range(10)])
CLICK = 0.6


@pytest.fixture(autouse=True)
def numpy_alone() -> Iterator[None]:
    before = kernel.native()
    kernel.use(False)
    yield
    kernel.use(before)


def state(*had: tuple[int, float], looked: tuple[int, ...] = ()) -> UserState:
    made = UserState("u")
    for row, days_ago in had:
        made = made.with_positive(int(ITEMS.keys[row]), CUT_DAY - days_ago)
    for row in looked:
        made = made.with_session_event(int(ITEMS.keys[row]), "click", CUT_DAY)
    return made


def ask(known: UserState, items=ITEMS, **asked: object) -> Query:
    return Query(Request("u", 4, CUT_DAY, **asked), known, items, Learning())


# What is read of a user


@pytest.mark.parametrize("tau_days", [5.0, 20.0, 45.0, 100.0, 400.0])
def test_a_mix_of_decays_is_the_best_pair_and_takes_nothing_away(tau_days: float) -> None:
    ages = np.arange(365)
    basis, target = np.exp(-ages[:, None] / np.array(TAUS_DAYS)), np.exp(-ages / tau_days)
    found = np.array(mix_for(tau_days))
    assert (found >= 0).all()
    assert np.count_nonzero(found) <= 2
    best = np.inf
    for left in range(4):
        for right in range(left + 1, 4):
            pair = np.linalg.lstsq(basis[:, [left, right]], target, rcond=None)[0].clip(0)
            best = min(best, float(np.square(basis[:, [left, right]] @ pair - target).sum()))
    assert float(np.square(basis @ found - target).sum()) == pytest.approx(best)


def test_counts_by_a_decay_that_is_not_kept_are_the_mix_of_those_that_are() -> None:
    query = ask(state((1, 10), (1, 30), (4, 50)))
    shares = mix_for(45.0)
    decayed = np.array([[np.exp(-10 / tau) + np.exp(-30 / tau), np.exp(-50 / tau)] for tau in TAUS_DAYS])
    assert np.count_nonzero(shares) == 2
    assert counts(query, 45.0) == pytest.approx(np.array(shares) @ decayed, rel=1e-5)
    assert counts(query, 60.0) == pytest.approx(decayed[TAUS_DAYS.index(60.0)], rel=1e-5)


def test_interest_is_the_history_in_logs_and_then_the_session() -> None:
    rows, weights = interest(ask(state((1, 10), (4, 50), looked=(7, 1))), 60.0)
    assert rows.tolist() == [1, 4, 7, 1]
    assert weights == pytest.approx([np.log1p(np.exp(-10 / 60)), np.log1p(np.exp(-50 / 60)), CLICK, CLICK], rel=1e-5)
    rows, weights = interest(ask(state((1, 10))), 60.0)
    assert (rows.tolist(), len(weights)) == ([1], 1)


def test_of_a_long_history_the_heaviest_and_all_of_the_session_are_kept() -> None:
    known = state((1, 10), (4, 50), (5, 1), looked=(7,))
    rows, weights = interest(ask(known), 60.0, limit=2)
    assert rows.tolist() == [1, 5, 7]
    assert weights[-1] == pytest.approx(CLICK)
    assert interest(ask(known), 60.0, limit=3)[0].tolist() == [1, 4, 5, 7]
    assert interest(ask(state((1, 10), (4, 50), (5, 1))), 60.0, limit=2)[0].tolist() == [1, 5]


def test_rows_outside_of_a_smaller_universe_have_no_place_in_it() -> None:
    place_of = np.array([-1, 0, 2, -1, 1], np.int32)
    at, inside = positions(np.array([0, 1, 2, 4, 5, 9], np.int32), place_of)
    assert at.tolist() == [0, 2, 1]
    assert inside.tolist() == [False, True, True, True, False, False]
    at, inside = positions(np.array([0, 1], np.int32), place_of[:0])
    assert (at.tolist(), inside.tolist()) == ([], [False, False])


# Buy again


def habits(*factor: float) -> BuyAgain:
    return BuyAgain(buy_again(share=1), Habits(np.array(factor, np.float32), 60.0))


def test_what_was_had_is_worth_its_decayed_counts_times_how_readily_it_is_bought_again() -> None:
    source = habits(*np.linspace(1, 0.1, 10))
    hits = source.retrieve(ask(state((1, 10), (4, 5), (6, 0))), 5)
    worth = {1: np.exp(-10 / 60) * 0.9, 4: np.exp(-5 / 60) * 0.6, 6: 0.4}
    assert hits.rows.tolist() == sorted(worth, key=lambda row: -worth[row])
    assert hits.scores == pytest.approx(sorted(worth.values(), reverse=True), rel=1e-5)
    assert source.retrieve(ask(state((1, 10), (4, 5), (6, 0))), 2).rows.tolist() == hits.rows.tolist()[:2]


def test_it_lacks_repeats_below_one_in_a_hundred() -> None:
    assert BuyAgain.lacks(Given(("purchase",), 0.01, 0)) == ""
    assert BuyAgain.lacks(Given(("purchase",), 0.0099, 0)) == "1.0% of purchase are of an item the user had before"
    assert BuyAgain.lacks(Given((), 0.0, 0)) == "0.0% of the positives are of an item the user had before"


def test_a_click_counts_where_the_item_was_had_and_nowhere_else() -> None:
    source = habits(*[1.0] * 10)
    for looked, more in (
        ((4,), {4: CLICK}),
        ((7,), {7: CLICK}),
        ((4, 4), {4: 2 * CLICK}),
        ((2, 5, 9), {}),
        ((0,), {}),
        ((8, 1), {1: CLICK}),
    ):
        hits = source.retrieve(ask(state((1, 30), (4, 30), (7, 30), looked=looked)), 5)
        found = dict(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))
        assert found == pytest.approx({row: np.exp(-30 / 60) + more.get(row, 0) for row in (1, 4, 7)}, rel=1e-5)


def test_an_item_posted_since_the_fit_is_bought_again_as_usual() -> None:
    source = habits(0.2, 0.4, 0.6, 0.8)  # rows 0 to 3 were there
    hits = source.retrieve(ask(state((3, 0), (4, 0), (8, 0))), 5)
    assert dict(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)) == pytest.approx({3: 0.8, 4: 0.5, 8: 0.5})
    assert habits().usual == 1.0


# Linear


def neighbours() -> Linear:
    """Rows 1, 2, 3 and 5 have neighbours. Of one unit, 1 says .4 for 2 and -.2 for 3; 2 says .9 for 3; 3 says .1 for 2; 5 says nothing."""
    place_of = np.full(8, -1, np.int32)
    place_of[[1, 2, 3, 5]] = range(4)
    return Linear(
        linear(share=1),
        Neighbours(
            rows=np.array([1, 2, 3, 5], np.int32), position_of=place_of,
            neighbours=np.array([[1, 2], [2, 3], [1, 0], [0, 1]], np.uint16),
            weights=np.array([[40, -20], [90, 0], [10, 0], [0, 0]], np.int16), scales=np.full(4, 0.01, np.float32), tau_days=60.0,
        ),
    )  # fmt: skip


def test_votes_add_up_and_negative_ones_are_told_but_not_listed() -> None:
    source, one = neighbours(), np.log(2)
    hits = source.retrieve(ask(state((1, 0), (3, 0))), 5)
    assert (hits.rows.tolist(), hits.scores.tolist()) == ([2], pytest.approx([0.5 * one]))
    scores = hits.scores_of(np.arange(10, dtype=np.int32))
    assert scores == pytest.approx([0, 0, 0.5 * one, -0.2 * one, 0, 0, 0, 0, 0, 0], abs=1e-6)
    assert not len(source.retrieve(ask(state((1, 0), (2, 0), (3, 0)), discover=True), 5).rows)
    silent = source.retrieve(ask(state((0, 0), (9, 0))), 5)
    assert (len(silent.rows), silent.values) == (0, None)
    assert len(source.retrieve(ask(state((1, 0), (2, 0))), 1).rows) == 1


def test_items_alike_are_those_an_item_votes_for_without_itself_and_what_is_left_out() -> None:
    source, nobody = neighbours(), np.empty(0, np.int32)
    hits = source.alike(1, 5, nobody)  # its vote for 3 is negative
    assert (hits.rows.tolist(), hits.scores.tolist()) == ([2], pytest.approx([0.4]))
    assert source.alike(2, 5, nobody).rows.tolist() == [3]
    assert source.alike(2, 5, np.array([3], np.int32)).rows.tolist() == []
    for unknown in (0, 5, 9):  # not in the table; silent; posted since
        hits = source.alike(unknown, 5, nobody)
        assert (len(hits.rows), len(hits.scores)) == (0, 0)


def nearest(source: Linear, known: UserState, row: int) -> int:
    return source.nearest(ask(known), row)


def test_the_nearest_is_the_one_that_says_most_for_an_item_and_nobody_where_none_speaks_for_it() -> None:
    source, known = neighbours(), state((1, 20), (2, 0), (3, 0))
    assert nearest(source, known, 2) == 1  # .4 for it, although longer ago; 3 says .1
    assert nearest(source, known, 3) == 2
    assert nearest(source, known, 1) == -1  # nobody has it as more than nothing
    assert [nearest(source, known, row) for row in (0, 5, 7, 8)] == [-1] * 4  # not in the table; posted since
    assert nearest(source, state((1, 0)), 3) == -1  # 1 speaks against it
    assert nearest(source, state((3, 0)), 2) == 3
    assert nearest(source, state((2, 0)), 3) == 2
    assert nearest(source, state((2, 0)), 2) == -1
    assert nearest(source, state(), 2) == -1


def test_the_parts_of_a_score_are_told_greatest_first_with_their_sign() -> None:
    source, one = neighbours(), np.log(2)
    query = ask(state((1, 0), (2, 0), (3, 0)))
    rows, parts = source.contributions(query, 3)
    assert (rows.tolist(), parts.tolist()) == ([2, 1], pytest.approx([0.9 * one, -0.2 * one]))
    rows, parts = source.contributions(query, 2)
    assert (rows.tolist(), parts.tolist()) == ([1, 3], pytest.approx([0.4 * one, 0.1 * one]))
    rows, parts = source.contributions(query, 1)  # the first of the table
    assert sorted(rows.tolist()) == [3]
    for row, known in ((0, state((1, 0))), (8, state((1, 0))), (9, state((1, 0))), (2, state())):
        assert [len(each) for each in source.contributions(ask(known), row)] == [0, 0]


# Trending


def lists() -> Trending:
    rows = np.array([[0, 1, 2, 3], [4, 5, 6, -1], [7, -1, -1, -1]], np.int32)
    scores = np.array([[9, 8, 7, 6], [5, 4, 3, 0], [2, 0, 0, 0]], np.float32)
    return Trending(trending(share=1), Lists(("everyone", "region:west", "place:north"), rows, scores, np.arange(10, dtype=np.float32)))


@pytest.mark.parametrize(
    ("own", "asked", "expected"),
    [
        ({}, {}, [0, 1, 2, 3]),
        ({"region": "west"}, {}, [4, 5, 6]),
        ({"place": "north"}, {}, [7]),
        ({"region": "west", "place": "north"}, {}, [7]),
        ({}, {"region": "west"}, [4, 5, 6]),
        ({}, {"place": "north"}, [7]),
        ({"region": "west"}, {"region": "east"}, [0, 1, 2, 3]),
        ({"place": "north"}, {"place": "south"}, [0, 1, 2, 3]),
        ({"place": "south", "region": "west"}, {}, [4, 5, 6]),
    ],
)
def test_the_narrowest_list_there_is_answers_for_where_the_user_asks_from(own: dict, asked: dict, expected: list[int]) -> None:
    hits = lists().retrieve(ask(replace(UserState("u"), **own), **asked), 9)
    assert hits.rows.tolist() == expected
    assert len(hits.scores) == len(expected)
    assert hits.scores_of(np.array([3, 9], np.int32)).tolist() == [3, 9]


@pytest.mark.parametrize(
    ("own", "row", "said"),
    [
        ({}, 0, "Popular right now"), ({}, 4, ""), ({"region": "west"}, 4, "Popular near you"), ({"region": "west"}, 0, ""),
        ({"place": "north"}, 7, "Popular at your store"), ({"place": "north"}, 4, ""),
    ],
)  # fmt: skip
def test_it_says_whose_list_an_item_is_on_and_nothing_of_others(own: dict, row: int, said: str) -> None:
    assert lists().reason(ask(replace(UserState("u"), **own)), row) == said


def test_a_list_ends_where_its_rows_do_and_the_first_row_of_all_is_a_row() -> None:
    for rows, expected in (([4, 0, -1, -1], [4, 0]), ([4, 3, 2, 0], [4, 3, 2, 0]), ([4, 3, 0, -1], [4, 3, 0])):
        given = Lists(("everyone",), np.array([rows], np.int32), np.ones((1, 4), np.float32), np.zeros(10, np.float32))
        assert Trending(trending(share=1), given).prior()[0].tolist() == expected


def test_a_list_is_as_long_as_asked_and_without_what_is_excluded() -> None:
    source = lists()
    assert source.retrieve(ask(UserState("u")), 2).rows.tolist() == [0, 1]
    hits = source.retrieve(ask(state((1, 3)), discover=True), 3)
    assert (hits.rows.tolist(), hits.scores.tolist()) == ([0, 2, 3], [9, 7, 6])


def test_what_is_counted_is_the_users_list_and_then_all_that_anybody_had_most_first() -> None:
    popularity = np.array([0, 3, 3, 9, 1, 0, 2, 0, 0, 5], np.float32)
    source = replace(lists(), lists=replace(lists().lists, popularity=popularity))
    for own, asked, expected in (
        ({}, {}, [0, 1, 2, 3, 9, 6, 4]),
        ({"region": "west"}, {}, [4, 5, 6, 3, 9, 1, 2]),
        ({"place": "north"}, {"region": "west"}, [7, 3, 9, 1, 2, 6, 4]),
        ({}, {"place": "north"}, [7, 3, 9, 1, 2, 6, 4]),
        ({"place": "north"}, {"place": "south", "region": "west"}, [4, 5, 6, 3, 9, 1, 2]),
    ):
        assert source.counted(ask(replace(UserState("u"), **own), **asked)).tolist() == expected


def test_a_file_says_of_trending_only_what_is_not_as_ever() -> None:
    asked = {"tau_days": 3, "velocity": True, "smoothing": 5}
    always = {"weight": 0.02, "discover_weight": 0.01, "offset": 60.0}
    assert trending(share=1).settings == {"days": 28, **always}
    assert trending(share=1, tau_days=0, velocity=False, smoothing=200).settings == {"days": 28, **always}
    assert trending(share=1, days=7, **asked).settings == {"days": 7, **asked, **always}


# Category x promotion


def offers_world(displayed: tuple[int, ...] = (), mailed: tuple[int, ...] = ()) -> tuple[CategoryPromotion, object]:
    """Items 0 to 3 on offer; categories 1, 1, 2, 2, as many types, brands 1, 2, 1, 2. In p0 item 1 sells twice as well as elsewhere."""
    codes = np.array([[1, 1, 3], [1, 1, 3], [2, 2, 4], [2, 2, 4]])
    plans = [np.zeros((1, 2, 4), np.uint8) for _ in range(2)]
    for plan, rows in zip(plans, (displayed, mailed), strict=True):
        plan[0, 0, list(rows)] = 1
    items = catalogue(
        list("abcd"), codes, places=("p0", "p1"), brand=np.array([1, 2, 1, 2], np.int32), brand_names=tuple("uxy"),
        plan_display=plans[0], plan_mailer=plans[1],
    )  # fmt: skip
    categories, types, brands = [0, 0.5, 0.5], [0, 0, 0, 0.5, 0.5], [0, 0.25, 0.75]
    offers = Offers(
        rows=np.arange(4, dtype=np.int32), popularity=np.array([8, 4, 2, 1], np.float32), local_ends=np.array([1, 1]),
        local_at=np.array([1], np.int32), local_factor=np.array([2], np.float32), local_default=np.array([0.5, 1], np.float32),
        share_ends=np.array([3, 8, 11]), shares=np.array([*categories, *types, *brands], np.float32), powers=(0.5, 1.0, 2.0),
        display_lift=0.3, mailer_lift=0.7, chain_lift=0.5, tau_days=60.0, prior_counts=10.0, items=4,
    )  # fmt: skip
    source = CategoryPromotion(category_promotion(share=1), items, offers, np.arange(4, dtype=np.int32), ())
    flat = np.array([[1, 1, 2, 2], [6, 6, 7, 7], [9, 10, 9, 10]], np.int32)
    return replace(source, kinds=(Kinds.of(flat, 0, 1), Kinds.of(flat, 2))), items


def promoted(known: UserState, displayed: tuple[int, ...] = (), mailed: tuple[int, ...] = (), **asked: object) -> list[float]:
    source, items = offers_world(displayed, mailed)
    return source.retrieve(ask(known, items, **asked), 4).scores_of(np.arange(4, dtype=np.int32)).tolist()


def test_of_a_stranger_without_a_store_offers_are_worth_what_is_planned_in_the_chain() -> None:
    nobody = UserState("u")
    assert promoted(nobody) == pytest.approx([8, 4, 2, 1])
    assert promoted(nobody, displayed=(0,)) == pytest.approx([8 * 1.25 * 1.15, 4, 2, 1])  # in one of two places: half of every lift
    assert promoted(nobody, mailed=(2,)) == pytest.approx([8, 4, 2 * 1.25 * 1.35, 1])
    assert promoted(nobody, displayed=(0,), mailed=(0,)) == pytest.approx([8 * 1.25 * 1.25 * 1.15 * 1.35, 4, 2, 1])


def test_in_a_store_what_sells_there_and_what_is_planned_there_is_worth_more() -> None:
    nobody = UserState("u")
    assert promoted(nobody, place="p0") == pytest.approx([4, 8, 1, 0.5])
    assert promoted(nobody, place="p1") == pytest.approx([8, 4, 2, 1])
    assert promoted(nobody, displayed=(0,), place="p0") == pytest.approx([4 * 1.25 * 1.3, 8, 1, 0.5])
    assert promoted(nobody, mailed=(0,), place="p0") == pytest.approx([4 * 1.25 * 1.7, 8, 1, 0.5])
    assert promoted(nobody, mailed=(0,), place="p1") == pytest.approx([8 * 1.25, 4, 2, 1])


def test_of_a_time_for_which_nothing_is_planned_nothing_is_promoted() -> None:
    source, items = offers_world(displayed=(0,), mailed=(1,))
    late = Query(Request("u", 4, CUT_DAY + 8, place="p0"), UserState("u"), items, Learning())
    assert source.retrieve(late, 4).scores_of(np.arange(4, dtype=np.int32)) == pytest.approx([4, 8, 1, 0.5])


def test_what_the_user_goes_for_is_lifted_by_its_power_in_every_grouping() -> None:
    source, items = offers_world()
    known = UserState("u").with_positive(int(items.keys[0]), CUT_DAY).with_session_event(int(items.keys[2]), "click", CUT_DAY)
    total = 1 + CLICK + 10
    category = {1: (1 / 0.5 + 10) / total, 2: (CLICK / 0.5 + 10) / total}
    brand = {1: ((1 + CLICK) / 0.25 + 10) / total, 2: 10 / total}
    expected = [worth * category[c] ** 0.5 * category[c] * brand[b] ** 2 for worth, c, b in ((8, 1, 1), (4, 1, 2), (2, 2, 1), (1, 2, 2))]
    assert promoted(known) == pytest.approx(expected, rel=1e-4)
    hits = source.retrieve(ask(known, items, discover=True), 4)
    assert sorted(hits.rows.tolist()) == [1, 2, 3]


def test_what_offers_are_worth_is_kept_for_so_many_stores_and_no_more() -> None:
    source, _ = offers_world()
    for place in range(600):
        source.worth[place + 10, 0] = np.zeros(4, np.float32)
    source._worth(0, 0)
    assert list(source.worth) == [(0, 0)]
