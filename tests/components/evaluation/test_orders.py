"""Orders shared by many: what each user is left with is what a loop over users leaves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.metrics import NOTHING, Target
from components.evaluation.orders import Orders

ORDERS = st.lists(st.lists(st.integers(0, 8), unique=True, max_size=7), min_size=1, max_size=4)
USERS = st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 11))), max_size=6)


@given(ORDERS, USERS, st.integers(1, 9))
def test_every_user_has_their_order_less_what_they_are_without(orders, users, length):
    users = [(which % len(orders), out) for which, out in users]
    pairs = [(user, item) for user, (_, out) in enumerate(users) for item in [*out, *list(out)[:1]]]  # one of them told twice
    out = Target(np.array([user for user, _ in pairs], int), np.array([item for _, item in pairs], int), len(users))
    made = Orders(np.array([item for order in orders for item in order], int), np.cumsum([len(order) for order in orders]))
    expected = []
    for which, gone in users:
        left = [item for item in orders[which] if item not in gone][:length]
        expected.append(left + [NOTHING] * (length - len(left)))
    assert made.without(np.array([which for which, _ in users], int), out, length).tolist() == expected
