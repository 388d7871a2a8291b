"""The sources that are counted, not trained: buy again, trending, category x promotion. Each against a slow obvious reference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.retrieval import buy_again, category_promotion, trending
from serving.retrieval.buy_again import BuyAgain
from serving.retrieval.buy_again import buy_again as buy_again_spec
from serving.retrieval.category_promotion import CategoryPromotion
from serving.retrieval.category_promotion import category_promotion as category_promotion_spec
from serving.retrieval.trending import Trending
from serving.retrieval.trending import trending as trending_spec
from serving.state.user_state import UserState
from tests.components.retrieval.worlds import CUT_DAY, Event, catalogue, clicked, cut, query

FOUR = ["a", "b", "c", "d"]
ALL = np.arange(4, dtype=np.int32)


def load(kind: type, fitter, spec, world, folder: Path):
    fitter.fit(world, spec, folder)
    return kind.load(folder, spec, world.catalogue)


def test_buy_again_ranks_by_decayed_counts(tmp_path: Path) -> None:
    # b: exp(-1/60) + exp(-50/60) = 1.42; a: exp(-2/60) = .97; c: exp(-90/60) = .22
    world = cut([("u", "a", 98), ("u", "b", 99), ("u", "b", 50), ("u", "c", 10)], catalogue(FOUR))
    source = load(BuyAgain, buy_again, buy_again_spec(share=1, tau_days=60), world, tmp_path)
    hits = source.retrieve(query(world.users[0], world.catalogue), 3)
    assert [world.catalogue.item_id(row) for row in hits.rows] == ["b", "a", "c"]
    # habits: b was bought on two days by its one buyer, (1 + 1) / (1 + 10); a and c (0 + 1) / (1 + 10); both ** .3
    assert hits.scores[1] == pytest.approx(np.exp(-2 / 60) * (1 / 11) ** 0.3, rel=1e-5)
    assert hits.scores[0] == pytest.approx((np.exp(-1 / 60) + np.exp(-50 / 60)) * (2 / 11) ** 0.3, rel=1e-5)


def test_buy_again_is_silent_where_only_new_items_are_asked_for(tmp_path: Path) -> None:
    world = cut([("u", "a", 98)], catalogue(FOUR))
    source = load(BuyAgain, buy_again, buy_again_spec(share=1), world, tmp_path)
    assert not len(source.retrieve(query(world.users[0], world.catalogue, discover=True), 5).rows)
    assert not len(source.retrieve(query(UserState("nobody"), world.catalogue), 5).rows)


def test_a_click_on_something_had_before_brings_it_forward(tmp_path: Path) -> None:
    world = cut([("u", "a", 98), ("u", "b", 97.9)], catalogue(FOUR))
    source = load(BuyAgain, buy_again, buy_again_spec(share=1), world, tmp_path)
    before = source.retrieve(query(world.users[0], world.catalogue), 5).rows
    after = source.retrieve(query(clicked(world.users[0], "b"), world.catalogue), 5).rows
    assert before.tolist() == [0, 1]
    assert after.tolist() == [1, 0]


def crowd(item: str, users: int, day: float, prefix: str = "u") -> list[Event]:
    return [(f"{prefix}{u:03d}", item, day) for u in range(users)]


def test_trending_counts_users_of_the_last_days(tmp_path: Path) -> None:
    # last 28 days: b 25 users, a 24; c had 30, too long ago
    world = cut([*crowd("a", 24, 95), *crowd("b", 25, 80), *crowd("b", 25, 81), *crowd("c", 30, 60)], catalogue(FOUR), region="north")
    source = load(Trending, trending, trending_spec(share=1, days=28), world, tmp_path)
    hits = source.retrieve(query(UserState("nobody"), world.catalogue), 5)
    assert hits.rows.tolist() == [1, 0]
    assert hits.scores.tolist() == [25, 24]
    assert hits.scores_of(ALL).tolist() == [24, 25, 0, 0]


def test_a_region_with_enough_users_has_its_own_list_and_others_get_everyones(tmp_path: Path) -> None:
    # everyone: b 20 + 3 x 19 = 77 users, a 60. South's own 60 and 20, each plus 200 / 117 of everyone's: a 162.6, b 151.6
    events = [*crowd("a", 60, 95, "s"), *crowd("b", 20, 95, "s"), *(event for region in "xyz" for event in crowd("b", 19, 95, region))]
    world = cut(events, catalogue(FOUR))
    regions = np.array([b"south" if bytes(user)[:1] == b"s" else bytes(user)[:1] for user in world.users.user_ids])
    world = replace(world, users=replace(world.users, region=regions))
    source = load(Trending, trending, trending_spec(share=1), world, tmp_path)
    assert source.prior("south")[0].tolist() == [0, 1]
    assert source.prior("x")[0].tolist() == [1, 0]  # nineteen users are too few for a list: everyone's
    assert source.prior("nowhere")[0].tolist() == [1, 0]


def test_trending_leaves_out_what_is_excluded(tmp_path: Path) -> None:
    world = cut([*crowd("a", 3, 95), *crowd("b", 2, 95)], catalogue(FOUR))
    source = load(Trending, trending, trending_spec(share=1), world, tmp_path)
    hits = source.retrieve(query(world.users[0], world.catalogue, discover=True), 5)
    assert hits.rows.tolist() == []
    hits = source.retrieve(query(world.users[2], world.catalogue, discover=True), 5)
    assert hits.rows.tolist() == [1]


def promotion_world():
    """Two kinds: 1 (a, b) and 2 (c, d). Users of s0 had a or c; d was never sold but is on display in place p0."""
    category = np.array([[1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2]])
    plan = np.zeros((1, 2, 4), np.uint8)
    plan[0, 0, 3] = 1
    items = catalogue(FOUR, category, places=("p0", "p1"), plan_display=plan)
    events = [*crowd("a", 4, 95), *crowd("c", 4, 95, "v"), *crowd("b", 3, 95), *crowd("c", 2, 95)]
    return cut(events, items, place="p0")


def test_category_promotion_equals_its_formula(tmp_path: Path) -> None:
    world = promotion_world()
    source = load(CategoryPromotion, category_promotion, category_promotion_spec(share=1), world, tmp_path)
    asked = query(world.users[0], world.catalogue)  # u000: a, b, c, each once, 5 days ago
    one = np.exp(-5 / 150)
    counts = np.array([4, 3, 6, 0]) * one  # all users
    popularity = np.array([4, 3, 6, 0]) + 0.02
    everywhere = counts + 0.5
    share = everywhere / everywhere.sum()
    store = ((counts + 2000 * share) / ((counts.sum() + 2000) * share)) ** 0.25
    own, total = np.array([2, 2, 1, 1]) * one, 3 * one + 20
    kind = np.array([7, 7, 6, 6]) / 13
    lift = (own / kind + 20) / total
    brand = (3 * one / 1.0 + 20) / total  # one brand: everybody's share is 1
    display = np.array([1, 1, 1, (1 + 0.5 / 2) * (1 + 0.3)])  # planned in one of two places, the user's own
    expected = popularity * store * display * lift**0.3 * lift**0.3 * brand**0.3
    hits = source.retrieve(asked, 4)
    np.testing.assert_allclose(hits.scores_of(ALL), expected, rtol=1e-4)
    assert hits.rows.tolist() == np.argsort(-expected).tolist()


def test_an_item_never_sold_is_reached_when_it_is_planned(tmp_path: Path) -> None:
    world = promotion_world()
    source = load(CategoryPromotion, category_promotion, category_promotion_spec(share=1), world, tmp_path)
    hits = source.retrieve(query(world.users[0], world.catalogue, discover=True), 4)
    assert hits.rows.tolist() == [3]


def test_a_click_raises_its_category(tmp_path: Path) -> None:
    world = promotion_world()
    source = load(CategoryPromotion, category_promotion, category_promotion_spec(share=1), world, tmp_path)
    nobody = UserState("nobody")
    before = source.retrieve(query(nobody, world.catalogue), 4).scores_of(ALL)
    after = source.retrieve(query(clicked(nobody, "b"), world.catalogue), 4).scores_of(ALL)
    assert after[0] / before[0] > 1 > after[2] / before[2]


def test_another_store_has_another_plan(tmp_path: Path) -> None:
    world = promotion_world()
    source = load(CategoryPromotion, category_promotion, category_promotion_spec(share=1), world, tmp_path)
    here, there = (source.retrieve(query(UserState("nobody"), world.catalogue, place=place), 4).scores_of(ALL) for place in ("p0", "p1"))
    assert here[3] > there[3]
    assert world.users.cut_day == CUT_DAY


def test_what_was_had_long_ago_counts_less_where_the_source_says_so(tmp_path: Path) -> None:
    # a: 30 users 9 days ago, 30 exp(-9/3) = 1.49; b: 4 users yesterday, 4 exp(-1/3) = 2.87
    world = cut([*crowd("a", 30, 91), *crowd("b", 4, 99, "v")], catalogue(FOUR))
    plain, decaying = trending_spec(share=1), trending_spec(share=1, tau_days=3)
    assert load(Trending, trending, plain, world, tmp_path / "plain").lists.rows[0, :2].tolist() == [0, 1]
    lists = load(Trending, trending, decaying, world, tmp_path / "decaying").lists
    assert lists.rows[0, :2].tolist() == [1, 0]
    assert lists.scores[0, :2] == pytest.approx([4 * np.exp(-1 / 3), 30 * np.exp(-3)], rel=1e-5)


def test_velocity_is_users_a_day_of_the_days_an_item_was_there(tmp_path: Path) -> None:
    # a: 20 users in all 14 days; b: 5 users in the one day since it came, as many as 70 in 14
    items = replace(catalogue(FOUR), created_day=np.array([CUT_DAY - 40, CUT_DAY - 1, np.nan, CUT_DAY - 0.01]))
    world = cut([*crowd("a", 20, 95), *crowd("b", 5, 99.5, "v"), *crowd("d", 1, 99.99, "w")], items)
    lists = load(Trending, trending, trending_spec(share=1, days=14, velocity=True), world, tmp_path).lists
    assert lists.rows[0, :3].tolist() == [1, 3, 0]
    # d came a quarter of an hour ago: it counts as there for a quarter of a day
    assert lists.scores[0, :3] == pytest.approx([5 * 14, 1 * 14 / 0.25, 20], rel=1e-5)


def test_a_region_is_smoothed_by_as_many_users_as_the_source_says(tmp_path: Path) -> None:
    world = cut([*crowd("a", 60, 99), *crowd("b", 20, 99, "v")], catalogue(FOUR))
    users = replace(world.users, region=np.array([b"east"] * 60 + [b"west"] * 20))
    world = replace(world, users=users)
    lists = load(Trending, trending, trending_spec(share=1, smoothing=0), world, tmp_path).lists
    west = lists.groups.index("region:west")
    assert lists.rows[west, :2].tolist() == [1, -1]  # nothing of what is had elsewhere
