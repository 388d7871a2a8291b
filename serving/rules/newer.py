"""Which items entered the catalogue lately. Shapes: I items, N rows."""

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Mask, Rows
from serving.query import Request


class Newer:
    """Items by age, looked up anew only when a request's moment passes an item's birthday."""

    def __init__(self, created_day: NDArray[np.float64]) -> None:
        self._created = np.nan_to_num(np.array(created_day), nan=-np.inf)  # (I,)
        self._sorted = np.sort(self._created)
        self._kept: dict[float, tuple[float, float, Mask]] = {}  # days -> the moments between which these are the newer ones

    def of(self, rows: Rows, days: float, request: Request) -> Mask:
        """(N,) which rows entered the catalogue within the last days."""
        newer: Mask = self.items(days, request).take(rows)
        return newer

    def items(self, days: float, request: Request) -> Mask:
        """(I,) which items did."""
        since = request.at_day - days
        kept = self._kept.get(days)
        if kept is None or not kept[0] <= since < kept[1]:
            older = int(np.searchsorted(self._sorted, since, side="right"))
            before = float(self._sorted[older - 1]) if older else -np.inf
            after = float(self._sorted[older]) if older < len(self._sorted) else np.inf
            kept = self._kept[days] = (before, after, self._created > since)
        return kept[2]
