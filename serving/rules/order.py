"""Order rules at work: scores multiplied, likenesses parted. Shapes: I items, N ranked candidates, M of them looked at, k answer length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Mask, Rows
from serving.query import Request
from serving.rules.diversity import marginal_order


@dataclass(frozen=True)
class Boosting:
    """Multiplies the scores of some items; a score below 0 is divided, so that it rises too."""

    factor: float
    newer_than_days: float  # 0: of any age
    mask: Mask  # (I,)
    created: NDArray[np.float64]  # (I,) days; -inf unknown

    def rescore(self, rows: Rows, scores: Floats, request: Request) -> Floats:
        hit = self.mask[rows]
        if self.newer_than_days:
            hit = hit & (self.created[rows] > request.at_day - self.newer_than_days)
        factor = np.float32(self.factor)
        return np.where(hit, np.where(scores > 0, scores * factor, scores / factor), scores)

    def reorder(self, rows: Rows, scores: Floats, order: NDArray[np.intp], k: int) -> NDArray[np.intp]:
        return order


@dataclass(frozen=True)
class Diversity:
    """Maximal marginal relevance over the best `among`."""

    strength: float
    among: int
    codes: NDArray[np.int32]  # (groups, I)

    def rescore(self, rows: Rows, scores: Floats, request: Request) -> Floats:
        return scores

    def reorder(self, rows: Rows, scores: Floats, order: NDArray[np.intp], k: int) -> NDArray[np.intp]:
        head = order[: self.among]  # (M,)
        if len(head) < 2:
            return order
        return np.concatenate((head[marginal_order(scores[head], self.codes[:, rows[head]], self.strength, k)], order[len(head) :]))
