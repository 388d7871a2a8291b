"""What is known of items at a cut, and which numbers are told of lists: at their edges."""

import numpy as np
import pytest

from components.evaluation.compare import CANDIDATE, CHAMPION, POPULARITY, Known, compare, popular, scores, sliced, variety
from components.evaluation.metrics import NOTHING, Mean, Target, coverage, diversity, hits, novelty
from components.evaluation.slices import by_baskets
from tests.components.retrieval.worlds import CUT_DAY, catalogue, states

EVENTS = [
    ("a", "1", 10.0), ("a", "1", CUT_DAY - 28), ("b", "1", 50.0), ("b", "2", CUT_DAY - 28.5), ("c", "2", CUT_DAY - 1), ("c", "9", 5.0),
]  # fmt: skip


def test_of_an_item_it_is_known_who_had_it_who_had_it_lately_and_when_it_was_first_sold() -> None:
    known = Known.of(states(EVENTS, "abc"), catalogue("0123"))  # 9 is no item of this catalogue
    assert known.buyers.tolist() == [0, 2, 1 + 1, 0]
    assert known.lately.tolist() == [0, 1, 1, 0]  # within 28 days, the first of them included
    assert known.first_day[[1, 2]].tolist() == [10.0, CUT_DAY - 28.5]
    assert np.isnan(known.first_day[[0, 3]]).all()
    assert known.users == 3


def test_popularity_fills_up_for_whom_much_is_left_out() -> None:
    known = Known(np.zeros(6), np.array([6.0, 5, 4, 3, 2, 1]), np.zeros(6), 9)
    without = Target(np.array([0, 0, 0]), np.array([0, 1, 2]), 2)
    nothing = np.zeros(6, bool)
    assert popular(known, 3, without, nothing).tolist() == [[3, 4, 5], [0, 1, 2]]
    assert popular(known, 5, without, nothing).tolist() == [[3, 4, 5, NOTHING, NOTHING], [0, 1, 2, 3, 4]]
    some = np.array([False, True, False, True, False, False])
    assert popular(known, 2, without, some).tolist() == [[4, 5], [0, 2]]


def at_place(place: int) -> dict[str, float]:
    """What is told of one user who wants two items and has one, at a place (from 1) of a list of 1200."""
    lists = np.arange(1, 1201, dtype=np.int32)[None]
    return {name: float(values[0]) for name, values in scores(lists, Target(np.array([0, 0]), np.array([place, 5000]), 1)).items()}


def test_hits_count_up_to_the_place_in_their_name() -> None:
    names = {f"{metric}@{k}" for metric in ("recall", "ndcg") for k in (10, 100, 1000)}
    assert set(at_place(1)) == names | {"recall@20", "hit_rate@10", "mrr", "mrr@20"}
    for k in (10, 100, 1000):
        inside, outside = at_place(k), at_place(k + 1)
        assert (inside[f"recall@{k}"], outside[f"recall@{k}"]) == (0.5, 0)
        assert inside[f"ndcg@{k}"] > outside[f"ndcg@{k}"] == 0
    assert (at_place(10)["hit_rate@10"], at_place(11)["hit_rate@10"]) == (1, 0)
    assert at_place(4)["mrr"] == at_place(4)["mrr@20"] == 0.25
    assert (at_place(20)["mrr@20"], at_place(21)["mrr@20"], at_place(21)["mrr"]) == (1 / 20, 0, 1 / 21)
    assert (at_place(20)["recall@20"], at_place(21)["recall@20"]) == (0.5, 0)


def test_numbers_are_told_to_a_millionth_and_an_error_nobody_knows_as_none() -> None:
    lists = {CANDIDATE: np.array([[1], [1], [2]], np.int32), POPULARITY: np.array([[1], [2], [2]], np.int32)}
    found = compare(lists, Target(np.arange(3), np.ones(3, int), 3))
    assert found["recommenders"][CANDIDATE]["mrr"] == {"value": 0.666667, "error": 0.333333}
    assert found["against"][POPULARITY]["mrr"] == {"value": 0.333333, "error": 0.333333}
    alone = compare({CANDIDATE: np.array([[1]], np.int32)}, Target(np.array([0]), np.array([1]), 1))
    assert alone["recommenders"][CANDIDATE]["mrr"] == {"value": 1.0, "error": None}
    assert alone["against"] == {}


def test_a_rival_is_compared_with_and_the_candidate_is_not_with_itself() -> None:
    lists = {name: np.array([[1], [1]], np.int32) for name in (CANDIDATE, POPULARITY, CHAMPION)}
    found = compare(lists, Target(np.array([0, 1]), np.array([1, 1]), 2))
    assert set(found["against"]) == {POPULARITY, CHAMPION}
    assert found["targets"] == 2


def test_an_item_just_outside_the_catalogue_belongs_to_no_slice() -> None:
    known = Known(np.zeros(3), np.zeros(3), np.array([95.0, 1.0, np.nan]), 9)
    target = Target(np.array([0, 0, 0]), np.array([3, 0, 2]), 1)
    found = sliced({CANDIDATE: np.array([[3, 0, 2]], np.int32)}, target, np.array([9.0]), known, 100.0)
    assert found["items first sold in the last 14 days"]["targets"] == 1
    assert found["items never sold"]["targets"] == 1


def test_variety_is_of_the_categories_the_brands_and_the_surprise_of_the_first_places() -> None:
    shop = catalogue("abcd", np.array([[1, 2, 5], [1, 2, 6], [1, 3, 7], [1, 4, 8]]), brand=np.array([1, 1, 1, 2], np.int32))
    known = Known(np.array([7.0, 1, 0, 3]), np.zeros(4), np.zeros(4), 7)
    found = variety(np.array([[0, 1, 2, 3], [0, 2, 1, 3]], np.int32), shop, known, 2)
    assert found["coverage@2"] == 0.75
    assert found["category_diversity@2"]["value"] == 0.5  # a and b are of one category at the second level
    assert found["brand_diversity@2"]["value"] == 0
    assert found["novelty_bits@2"]["value"] == pytest.approx((np.mean([0, 2]) + np.mean([0, 3])) / 2)


def test_users_are_in_slices_by_whole_baskets() -> None:
    assert [int(mask.sum()) for mask in by_baskets(np.array([0.0, 4.9, 5, 24.9, 25, 99.9, 100, 1e6])).values()] == [2, 2, 2, 2]


# Metrics at their edges


def test_an_item_of_another_user_is_no_hit_whatever_the_numbers() -> None:
    lists = np.array([[NOTHING, 0, 9], [9, 0, NOTHING]], np.int32)
    assert hits(lists, Target(np.array([0, 1]), np.array([9, 0]), 2)).tolist() == [[False, False, True], [False, True, False]]
    assert not hits(lists, Target(np.empty(0, int), np.empty(0, int), 2)).any()


def test_the_mean_of_one_has_an_error_without_bound_and_of_two_that_of_the_sample() -> None:
    assert Mean.of(np.array([3.0])) == Mean(3.0, float("inf"), 1)
    assert Mean.of(np.array([1.0, 3.0])) == Mean(2.0, 1.0, 2)


def test_what_fills_a_list_up_is_no_item_of_it() -> None:
    lists = np.array([[1, NOTHING, NOTHING], [2, 1, NOTHING]], np.int32)
    assert coverage(lists, 3, 4) == 0.5
    assert coverage(lists[:, 1:], 2, 0) == 1.0  # of no item at all
    assert diversity(lists, 3, np.array([5, 5, 5], np.int32)).tolist() == [0, 0]
    assert diversity(lists, 3, np.array([5, 5, 6], np.int32)).tolist() == [0, 1]
    assert novelty(lists, 3, np.array([0.0, 1, 3]), 7).tolist() == [2.0, 1.5]
    assert novelty(np.full((1, 2), NOTHING, np.int32), 2, np.array([1.0]), 7).tolist() == [0.0]
