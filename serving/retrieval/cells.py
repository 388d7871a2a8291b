"""Items grouped by nearest centroid, so that a search looks into a few cells."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, Floats, Held
from serving.retrieval.top_k import select


@dataclass(frozen=True)
class Cells(ArrayFolder):
    """Items grouped by nearest centroid, vectors side by side; made by `components/retrieval/cells.py`, which also chooses `probes`."""

    centroids: Annotated[NDArray[np.float32], Held("LD")]  # (L, D)
    bonus: Annotated[NDArray[np.float32], Held("L")]  # (L,) what a cell's items add to their product at most usually (their prior)
    rows: Annotated[NDArray[np.int32], Held("I", below="I")]  # (I,) cell after cell, ascending within a cell
    ends: Annotated[NDArray[np.int64], Held("L", ends="I")]  # (L,) where each cell ends
    probes: int  # cells looked into
    vectors: Annotated[NDArray[np.int8], Held("ID", any=True)]  # (I, D) of `rows`, over their scale
    scales: Annotated[NDArray[np.float32], Held("I")]  # (I,) of `rows`
    prior: Annotated[NDArray[np.float32], Held("I")]  # (I,) of `rows`

    def near(self, vector: Floats, probes: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the cells most promising for `vector` (D,) begin and end: (probes,), (probes,). Their order is that of the table."""
        worth = self.centroids @ vector + self.bonus  # (L,)
        best = np.sort(select(worth, probes or self.probes))
        return np.where(best > 0, self.ends[best - 1], 0), np.asarray(self.ends[best])


def stretch(values: NDArray[Any], begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[Any]:
    """values[begin:end] of each pair, one after the other."""
    parts = [values[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    return np.concatenate(parts) if parts else values[:0]
