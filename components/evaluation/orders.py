"""Orders of items that many users share, less what each of them is without: lists for any number of users, and no loop over them.

Shapes: U users, D orders, M places of all orders end to end, N (user, item) pairs, L list length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluation.metrics import NOTHING, Lists, Target


@dataclass(frozen=True)
class Orders:
    """Several orders end to end, each without a repeated item."""

    items: NDArray[np.int64]  # (M,) item rows, best first
    ends: NDArray[np.int64]  # (D,) where each ends

    def without(self, which: NDArray[np.int64], out: Target, length: int) -> Lists:
        """(U, L) for each user the first of order `which` (U,) that stay when their pairs of `out` are gone.

        Where the items of a user that go stand at places p_0 < p_1 < …, the r-th that stays stands r places from the begin, and as many
        further as there are j with p_j - j <= r.
        """
        begins = np.concatenate(([0], self.ends[:-1])).astype(np.int64)
        user, place = self._places(which, out, begins)
        later = place - (np.arange(len(user)) - np.searchsorted(user, user))  # (N,) p_j - j
        early = later < length
        skipped = np.bincount(user[early] * length + later[early], minlength=out.count * length).reshape(out.count, length)
        at = (begins[which][:, None] + np.arange(length) + np.cumsum(skipped, axis=1)).reshape(out.count, length)
        there = at < self.ends[which][:, None]
        return np.where(there, np.append(self.items, NOTHING)[np.where(there, at, -1)], NOTHING).astype(np.int32)

    def _places(self, which: NDArray[np.int64], out: Target, begins: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the pairs that stand in their user's order, each once: user and place in it, ascending. (N,), (N,)"""
        width = int(max(self.items.max(initial=0), out.items.max(initial=0))) + 1
        order = np.repeat(np.arange(len(self.ends)), self.ends - begins)
        listed = np.append(order * width + self.items, -1)  # (M + 1,) the last is nobody's
        by_item, sought = np.argsort(listed), which[out.users] * width + out.items
        at = by_item[np.minimum(np.searchsorted(listed, sought, sorter=by_item), len(order))]
        found = listed[at] == sought
        user, at = out.users[found], at[found]
        pairs = np.unique(user * len(listed) + at - begins[which[user]])
        return pairs // len(listed), pairs % len(listed)
