"""Lists that need no model: popular in each region, one for everybody, and optionally one a user from the last batch."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Held, Rows


@dataclass(frozen=True)
class Fallback(ArrayFolder):
    """Item rows, best first, padded with -1. Shapes: R regions, U users with a list, N length of a list."""

    regions: tuple[str, ...]  # (R)
    region_rows: Annotated[NDArray[np.int32], Held("RN", -1, "I")]  # (R, N)
    static_rows: Annotated[NDArray[np.int32], Held("S", -1, "I")]  # (N,) for everybody
    user_ids: Annotated[NDArray[np.bytes_], Held("U")]  # (U,) UTF-8, sorted by bytes; may be empty
    user_rows: Annotated[NDArray[np.int32], Held("UM", -1, "I")]  # (U, N)

    def popular(self, region: str) -> Rows:
        """The region's list; empty where the region is unknown."""
        if region not in self.regions:
            return np.empty(0, np.int32)
        rows = self.region_rows[self.regions.index(region)]
        return rows[rows >= 0]

    def static(self) -> Rows:
        return self.static_rows[self.static_rows >= 0]

    def user(self, user_id: str) -> Rows:
        """The user's list of the last batch, as it stands: a server's may be spoilt. Empty where there is none."""
        at = int(np.searchsorted(self.user_ids, user_id.encode()))
        if at >= len(self.user_ids) or bytes(self.user_ids[at]) != user_id.encode():
            return np.empty(0, np.int32)
        rows = self.user_rows[at]
        return rows[rows != -1]
