"""Impostors list what they say they list, and none of them gets through the gate on the tiny catalogue's own made-up week."""

import json

import numpy as np
import pytest

from components.evaluation import impostors as module
from components.evaluation.compare import Known
from components.evaluation.impostors import IN_CATEGORY, LESS_HAD, RANDOM, impostors, judged
from components.evaluation.metrics import NOTHING
from components.evaluation.truth import read_truth
from components.evaluation.visible import barred_items
from tests.components.evaluation.test_truth import features
from tests.serving import tiny_bundle

WEEK = [(f"u{user:02}", f"i{(user * 7 + step) % 240:03}") for user in range(12) for step in (0, 12, 40)]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return read_truth(features(tmp_path_factory.mktemp("week"), WEEK))


@pytest.fixture(scope="module")
def asked(truth):
    barred = barred_items(tiny_bundle.system(), truth.catalogue)
    return {new: impostors(truth, Known.of(truth.states, truth.catalogue), barred, new_only=new) for new in (False, True)}


def listed(lists, user):
    return [row for row in lists[user].tolist() if row != NOTHING]


def test_popular_less_had_lists_what_was_had_of_late_by_others(asked, truth):
    # of late (28 days) each of the first 12 items was had by one user: item n by user n
    for user in range(12):
        assert listed(asked[False]["popularity"], user) == list(range(10))
        assert listed(asked[False][LESS_HAD], user) == [item for item in range(12) if item != user][:10]


def test_popular_in_category_begins_with_the_users_own_category(asked):
    # user n had items n, n + 12, n + 24, all of category n, of which item n alone was had of late
    for user in range(12):
        assert listed(asked[False][IN_CATEGORY[1]], user)[0] == user


def test_where_only_new_items_count_nobody_is_offered_what_they_had(asked, truth):
    for name, lists in asked[True].items():
        for user in range(12):
            had = truth.had.items[truth.had.users == user]
            assert len(had) == 3
            assert not set(had.tolist()) & set(listed(lists, user)), name


def slow_popular_in_category(truth, known, barred, new_only, level):
    """User by user: share of the user's history in an item's category times its users of late."""
    category, lists = np.asarray(truth.catalogue.category)[:, level], []
    for index in truth.users.tolist():
        state = truth.states[index]
        rows = truth.catalogue.rows_of_keys(state.keys)
        share = {int(code): float(state.counts[category[rows] == code].sum() / state.counts.sum()) for code in set(category.tolist())}
        worth = {
            row: float(known.lately[row]) * (share[int(category[row])] + 1e-9)
            for row in range(len(truth.catalogue))
            if known.lately[row] > 0 and not barred[row] and not (new_only and row in rows.tolist())
        }
        lists.append(sorted(worth, key=lambda row: (-worth[row], row))[:10])
    return lists


@pytest.mark.parametrize("numbers", [1, 1 << 20])  # of users x items at once: one user, all
def test_popular_in_category_is_a_slow_loop_over_users(truth, numbers, monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS", numbers)
    known, barred = Known.of(truth.states, truth.catalogue), barred_items(tiny_bundle.system(), truth.catalogue)
    for new_only in (False, True):
        for level, name in enumerate(IN_CATEGORY):
            found = impostors(truth, known, barred, new_only=new_only)[name]
            expected = slow_popular_in_category(truth, known, barred, new_only, level)
            assert [listed(found, user) for user in range(12)] == expected, (name, new_only)


def test_random_draws_from_what_may_be_shown_for_each_user_anew(asked):
    lists = asked[False][RANDOM]
    assert (lists < tiny_bundle.ITEMS - 3).all()
    assert len({tuple(row) for row in lists.tolist()}) == 12
    assert all(len(set(row)) == 10 for row in lists.tolist())


@pytest.mark.parametrize("k", [1, 5, 20])
def test_lists_are_as_long_as_an_answer_and_judged_at_that_length(truth, k):
    barred = barred_items(tiny_bundle.system(), truth.catalogue)
    lists = impostors(truth, Known.of(truth.states, truth.catalogue), barred, new_only=False, k=k)
    assert {one.shape for one in lists.values()} == {(12, k)}
    fifth = np.full((12, 20), NOTHING, np.int32)  # one of three items had stands in the fifth place
    for user in range(12):
        fifth[user, 4] = next(row for who, row in zip(truth.target.users, truth.target.items, strict=True) if who == user)
    best = sum(1 / np.log2(place + 2) for place in range(min(k, 3)))
    found = judged(fifth, lists, truth.target, f"ndcg@{k}")
    assert found["candidate"]["value"] == pytest.approx(1 / np.log2(6) / best if k >= 5 else 0, abs=1e-6)


def test_the_numbers_are_those_of_a_slow_count(asked, truth):
    ours = np.array([[row for who, row in zip(truth.target.users, truth.target.items, strict=True) if who == user] for user in range(12)])
    found = judged(ours.astype(np.int32), asked[False], truth.target)
    assert found["candidate"]["value"] == 1.0  # the candidate lists exactly what was had
    gains = []
    for user in range(12):
        hits = [1 / np.log2(place + 2) for place, row in enumerate(listed(asked[False]["popularity"], user)) if row in ours[user]]
        gains.append(sum(hits) / sum(1 / np.log2(place + 2) for place in range(3)))
    assert found["values"]["popularity"]["value"] == pytest.approx(np.mean(gains), abs=1e-6)
    assert found["candidate_against"]["popularity"]["value"] == pytest.approx(1 - np.mean(gains), abs=1e-6)
    assert RANDOM not in found["candidate_against"]  # what it draws is no bar
    assert set(found["asked"]) == {*found["candidate_against"], RANDOM}
    assert found["asked"]["popularity"]["popularity"] == {"value": 0.0, "error": 0.0}
    assert json.loads(json.dumps(found)) == found


def test_one_user_gives_no_numbers(asked, truth):
    one = truth.target.only(truth.target.users == 3)
    assert judged(asked[False]["popularity"], asked[False], one) == {"users": 1}
