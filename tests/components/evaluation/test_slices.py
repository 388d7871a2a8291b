"""Slices keep whom they say, and a person made cold has only the last baskets."""

from dataclasses import replace

import numpy as np

from components.evaluation.slices import baskets_of, by_baskets, by_item_age, made_cold
from serving.state.user_state import UserState
from tests.serving.tiny_bundle import states


def test_every_user_falls_into_exactly_one_slice_of_baskets():
    masks = by_baskets(np.array([0, 4, 5, 24, 25, 99, 100, np.nan]))
    assert [mask.nonzero()[0].tolist() for mask in masks.values()] == [[0, 1, 7], [2, 3], [4, 5], [6]]


def test_items_are_new_within_fourteen_days_and_never_sold_when_no_sale_is_known():
    masks = by_item_age(np.array([100.0, 86.0, 85.9, np.nan]), cut_day=100.0)
    assert masks["items first sold in the last 14 days"].tolist() == [True, True, False, False]
    assert masks["items never sold"].tolist() == [False, False, False, True]


def test_a_person_made_cold_keeps_the_last_baskets_only():
    state = UserState("ann", place="north")
    for key, day in ((1, 10.0), (2, 10.0), (1, 20.0), (3, 20.0), (4, 30.0)):  # baskets {1, 2}, {1, 3}, {4}
        state = state.with_positive(key, day)
    assert [made_cold(state, n).keys.tolist() for n in (0, 1, 2, 3)] == [[], [4], [1, 3, 4], [1, 2, 3, 4]]
    cold = made_cold(state, 2)
    assert (cold.user_id, cold.place, cold.counts.tolist(), len(cold.features)) == ("ann", "north", [1, 1, 1], 0)


def test_baskets_are_the_systems_own_count_and_where_it_has_none_the_days_with_an_event():
    users = states()
    counted = replace(users, feature_names=("user_baskets_all",), features=np.log1p(np.arange(len(users)))[:, None].astype(np.float32))
    assert baskets_of(counted).tolist() == list(range(len(users)))
    uncounted = replace(users, feature_names=("crm",), features=users.features[:, :1])
    assert baskets_of(uncounted).tolist() == [len({int(day) for day in users[index].last_day}) for index in range(len(users))]
