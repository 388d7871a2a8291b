"""Cells for catalogues too large to search whole: k-means on the item vectors, and as many probes as the asked recall takes.

Shapes: I items, D dimensions, L cells, Q trial vectors.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serving.retrieval.cells import Cells, stretch
from serving.retrieval.top_k import select
from serving.retrieval.two_tower import TowerTable

LEAST_RECALL = 0.97  # of the exact answer
_ITERATIONS, _POINTS_A_CELL = 8, 64
_BLOCK_NUMBERS = 1 << 25  # distances at once: 128 MB
Floats = NDArray[np.float32]


def build(table: TowerTable, trials: Floats, n: int, seed: int) -> Cells:
    """Cells of a tower's items. `trials` (Q, D): user vectors over the temperature, as the cells will be asked with."""
    vectors, prior = np.asarray(table.vectors, np.float32) * np.asarray(table.scales)[:, None], np.asarray(table.prior)
    count = max(1, int(2 * np.sqrt(len(vectors))))
    centroids = _centroids(vectors, count, np.random.default_rng(seed))
    cell = _nearest(vectors, centroids)  # (I,)
    rows = np.argsort(cell, kind="stable").astype(np.int32)
    sizes = np.bincount(cell, minlength=count)
    mean = np.bincount(cell, prior, minlength=count) / np.maximum(sizes, 1)
    spread = np.sqrt(np.maximum(np.bincount(cell, prior**2, minlength=count) / np.maximum(sizes, 1) - mean**2, 0))
    bonus = np.where(sizes > 0, mean + spread, -np.inf).astype(np.float32)
    cells = Cells(centroids, bonus, rows, np.cumsum(sizes), count, table.vectors[rows], table.scales[rows], table.prior[rows])
    exact = [select(vectors @ trial + prior, n) for trial in trials]
    probes = 1
    while probes < count and least(recalls(cells, vectors, prior, trials, exact, probes)) < LEAST_RECALL:
        probes = min(count, probes + max(1, probes // 4))
    return replace(cells, probes=probes)


def least(shares: NDArray[np.float64]) -> float:
    """Their mean less its standard error: other users than those tried find as much, more often than not."""
    return float(shares.mean() - shares.std() / np.sqrt(len(shares)))


def recalls(
    cells: Cells, vectors: Floats, prior: Floats, trials: Floats, exact: list[NDArray[np.int32]], probes: int
) -> NDArray[np.float64]:
    """(Q,) share of each exact answer found in that many cells."""
    found = []
    for trial, truth in zip(trials, exact, strict=True):
        near = stretch(cells.rows, *cells.near(trial, probes))
        best = near[select(vectors[near] @ trial + prior[near], len(truth))]
        found.append(np.isin(truth, best).mean())
    return np.array(found, np.float64)


def _centroids(vectors: Floats, count: int, random: np.random.Generator) -> Floats:
    """(L, D) k-means (Lloyd 1982), block by block: scipy's `kmeans2` holds every distance at once, 10 GB for ten million items."""
    from scipy.sparse import csr_array

    sample = vectors[np.sort(random.choice(len(vectors), min(len(vectors), count * _POINTS_A_CELL), replace=False))]
    centroids = sample[random.choice(len(sample), count, replace=False)]
    for _ in range(_ITERATIONS):
        cell = _nearest(sample, centroids)
        sizes = np.bincount(cell, minlength=count)[:, None]
        sums = csr_array((np.ones(len(cell), np.float32), (cell, np.arange(len(cell)))), shape=(count, len(cell))) @ sample
        centroids = np.where(sizes > 0, sums / np.maximum(sizes, 1), centroids).astype(np.float32)  # an empty one stays where it was
    return np.ascontiguousarray(centroids)


def _nearest(vectors: Floats, centroids: Floats) -> NDArray[np.intp]:
    """(I,) the centroid with the least distance."""
    from scipy.cluster.vq import vq

    step = max(1, _BLOCK_NUMBERS // len(centroids))
    blocks = [vq(vectors[begin : begin + step], centroids)[0] for begin in range(0, len(vectors), step)]
    return np.concatenate(blocks) if blocks else np.empty(0, np.intp)
