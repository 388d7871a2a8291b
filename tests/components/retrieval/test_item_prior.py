"""What is expected of an item nobody has had: what such items of its kind had lately, not what the old ones had."""

import numpy as np
import pytest

from components.retrieval.two_tower import debut_rate, item_prior
from tests.components.retrieval.worlds import CUT_DAY, Event, catalogue, cut

#              a, b: kind 1        c, d: kind 2, of the same broader categories
CATEGORY = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 2], [1, 1, 2]])


def crowd(item: str, users: int, days_ago: float) -> list[Event]:
    return [(f"u{user:03d}", item, CUT_DAY - days_ago) for user in range(users)]


def test_a_debut_is_judged_by_debuts_of_its_kind_and_of_all_and_never_by_old_items() -> None:
    # a was first sold long ago and sells well still; b came out lately and six had it; c and d were never sold
    events = [*crowd("a", 40, 90), *crowd("a", 30, 5), *crowd("b", 6, 5)]
    rate = debut_rate(cut(events, catalogue("abcd", CATEGORY)))
    # fresh: b, c, d. Kind 1: 6 users of 1 item; kind 2: none of 2; overall 6 / 3 = 2, with the weight of ten items
    assert rate == pytest.approx([(6 + 20) / 11, (6 + 20) / 11, 20 / 12, 20 / 12])


def test_an_item_first_sold_on_the_first_of_the_days_is_a_debut_and_the_day_before_is_not() -> None:
    fresh = debut_rate(cut(crowd("a", 6, 28), catalogue("abcd", CATEGORY)))
    assert fresh[0] == pytest.approx((6 + 10 * 6 / 4) / (2 + 10))
    old = debut_rate(cut([*crowd("a", 6, 28), ("u000", "a", CUT_DAY - 28.5)], catalogue("abcd", CATEGORY)))
    assert old.tolist() == [0, 0, 0, 0]


def test_where_everything_is_old_nothing_is_expected_of_a_debut() -> None:
    assert debut_rate(cut([event for item in "abcd" for event in crowd(item, 3, 90)], catalogue("abcd", CATEGORY))).tolist() == [0] * 4


def test_where_nothing_is_new_an_item_that_nobody_had_lately_is_unlikely_and_not_impossible() -> None:
    world = cut([event for item, ago in zip("abcd", (5, 90, 90, 90), strict=True) for event in crowd(item, 3, ago) + crowd(item, 1, 90)],
                catalogue("abcd", CATEGORY))  # fmt: skip
    expected = np.array([3, 1e-3, 1e-3, 1e-3])
    assert item_prior(world) == pytest.approx(np.log(expected / expected.sum()), abs=1e-5)


def test_the_prior_is_the_log_of_the_share_of_those_who_had_it_lately_and_of_debuts() -> None:
    world = cut([*crowd("a", 40, 90), *crowd("a", 30, 5), *crowd("b", 6, 5)], catalogue("abcd", CATEGORY))
    expected = np.array([30, 6, 0, 0]) + debut_rate(world)
    assert item_prior(world) == pytest.approx(np.log(expected / expected.sum()), rel=1e-5)
    assert np.exp(item_prior(world)).sum() == pytest.approx(1, rel=1e-5)
