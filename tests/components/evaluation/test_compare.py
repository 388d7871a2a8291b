"""What is said of recommenders beside each other, on worlds small enough to count by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.compare import CANDIDATE, POPULARITY, Known, compare, popular, sliced
from components.evaluation.metrics import NOTHING, Target

KNOWN = Known(
    buyers=np.array([9.0, 5, 5, 1, 0]), lately=np.array([1.0, 4, 4, 0, 0]), first_day=np.array([1.0, 1, 95, 90, np.nan]), users=10
)


def test_popularity_ranks_by_users_of_late_leaves_out_what_is_asked_and_never_lists_the_unsold():
    nothing = np.zeros(5, bool)
    assert popular(KNOWN, 4, Target(np.array([1]), np.array([1]), 2), nothing).tolist() == [[1, 2, 0, NOTHING], [2, 0, NOTHING, NOTHING]]


def test_what_no_answer_may_hold_is_in_no_rivals_list():
    barred = np.array([False, True, False, False, False])
    assert popular(KNOWN, 2, Target(np.array([], int), np.array([], int), 1), barred).tolist() == [[2, 0]]


def slowly(known: Known, length: int, had: list[set[int]], barred: np.ndarray) -> list[list[int]]:
    """Everybody's list, user by user."""
    order = [row for row in np.argsort(-known.lately, kind="stable").tolist() if known.lately[row] > 0 and not barred[row]]
    lists = [[row for row in order if row not in mine][:length] for mine in had]
    return [one + [NOTHING] * (length - len(one)) for one in lists]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.sets(st.integers(0, 14)), min_size=1, max_size=4), st.integers(1, 9)
)
def test_popularity_is_what_a_slow_loop_over_users_lists(lately, had, length):
    known = Known(np.zeros(len(lately)), np.array(lately, float), np.zeros(len(lately)), 9)
    barred = np.arange(len(lately)) % 5 == 4
    pairs = [(user, item) for user, mine in enumerate(had) for item in sorted(mine)]  # also of items the catalogue lacks
    without = Target(np.array([u for u, _ in pairs], int), np.array([i for _, i in pairs], int), len(had))
    assert popular(known, length, without, barred).tolist() == slowly(known, length, had, barred)


def test_users_without_a_target_are_not_judged_and_differences_are_of_the_same_users():
    # user 0 wants 3; user 1 nothing; user 2 wants 0. The candidate lists 3 then 0, popularity 0 then 3.
    target = Target(np.array([0, 2]), np.array([3, 0]), 3)
    lists = {CANDIDATE: np.array([[3, 0]] * 3, np.int32), POPULARITY: np.array([[0, 3]] * 3, np.int32)}
    found = compare(lists, target)
    assert (found["users"], found["targets"]) == (2, 2)
    assert found["recommenders"][CANDIDATE]["mrr"]["value"] == pytest.approx(0.75)
    difference = found["against"][POPULARITY]["mrr"]  # +.5 for user 0, -.5 for user 2
    assert difference["value"] == 0
    assert difference["error"] == pytest.approx(0.5)


def test_a_target_that_nobody_has_is_said_to_have_no_users():
    assert compare({CANDIDATE: np.zeros((2, 1), np.int32)}, Target(np.array([], int), np.array([], int), 2))["users"] == 0


def test_slices_split_users_by_baskets_and_targets_by_the_items_age():
    # user 0 with 3 baskets wants items 2 (first sold on day 95) and 4 (never sold); user 1 with 200 wants item 0
    target = Target(np.array([0, 0, 1]), np.array([2, 4, 0]), 2)
    lists = {CANDIDATE: np.array([[2, 1], [0, 1]], np.int32)}
    found = sliced(lists, target, np.array([3.0, 200.0]), KNOWN, cut_day=100.0)
    assert {name: part["users"] for name, part in found.items()} == {
        "under 5 baskets": 1,
        "5 to 24 baskets": 0,
        "25 to 99 baskets": 0,
        "100 or more baskets": 1,
        "items first sold in the last 14 days": 1,
        "items never sold": 1,
    }
    recalls = {name: part["recommenders"][CANDIDATE]["recall@10"]["value"] for name, part in found.items() if part["users"]}
    assert recalls == {"under 5 baskets": 0.5, "100 or more baskets": 1, "items first sold in the last 14 days": 1, "items never sold": 0}


def test_an_item_the_catalogue_lacks_belongs_to_no_slice_of_items():
    found = sliced({CANDIDATE: np.array([[0]], np.int32)}, Target(np.array([0]), np.array([7]), 1), np.array([9.0]), KNOWN, 100.0)
    assert found["items never sold"]["users"] == 0
