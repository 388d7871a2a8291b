"""Who and what a mean hides: users by how much is known of them, items by how long they are known, users made cold on purpose.

Shapes: U users, N target pairs, I items, H history rows of one user.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from serving.state.user_state import StateTable, UserState

BASKETS = {"under 5 baskets": (0, 5), "5 to 24 baskets": (5, 25), "25 to 99 baskets": (25, 100), "100 or more baskets": (100, np.inf)}
COUNTED = "user_baskets_all"  # log1p of baskets before the cut, where a system picks that feature
COLD_BASKETS = (0, 1, 5)
NEW_ITEM_DAYS = 14


def baskets_of(users: StateTable) -> NDArray[np.float64]:
    """(U,) baskets before the cut as the system's features count them; where it has no such feature, a day with an event is one."""
    if COUNTED in users.feature_names:
        return np.asarray(np.expm1(users.features[:, users.feature_names.index(COUNTED)].astype(np.float64)).round())
    owner = np.repeat(np.arange(len(users)), np.diff(users.ends, prepend=0))
    day = np.floor(users.last_day).astype(np.int64)  # an item had again shows its last day alone
    first, last = (int(day.min()), int(day.max())) if len(day) else (0, 0)
    user = np.unique(owner * (last - first + 1) + day - first) // (last - first + 1)
    return np.bincount(user, minlength=len(users)).astype(np.float64)


def by_baskets(baskets: NDArray[np.float64]) -> Mapping[str, NDArray[np.bool_]]:
    """Users by baskets before the cut (U,), as masks (U,). A user nobody knows has none."""
    known = np.nan_to_num(baskets, nan=0.0)
    return {name: (known >= low) & (known < high) for name, (low, high) in BASKETS.items()}


def by_item_age(first_sold_day: NDArray[np.float64], cut_day: float) -> Mapping[str, NDArray[np.bool_]]:
    """Items by when they were first sold (I,), NaN for never, as masks (I,)."""
    return {
        "items first sold in the last 14 days": first_sold_day >= cut_day - NEW_ITEM_DAYS,
        "items never sold": np.isnan(first_sold_day),
    }


def made_cold(state: UserState, baskets: int) -> UserState:
    """The same person as a newcomer of whom only the last `baskets` baskets are known: what events would have made of nothing.

    A basket is the items of one moment. A state keeps only the last moment of an item, so a basket of which all was bought again later is
    passed over.
    """
    moments = np.unique(state.last_day)[::-1][:baskets]
    cold = UserState(user_id=state.user_id, place=state.place, region=state.region, consent=state.consent)
    for at in np.flatnonzero(np.isin(state.last_day, moments)):
        cold = cold.with_positive(int(state.keys[at]), float(state.last_day[at]))
    return cold
