"""Fits `serving/retrieval/linear.py`: EASE (Steck 2019) in its dual form, for few users and many items.

With X (U, M) the log1p of decayed counts, K = XX' + lambda I (U, U), G = X'K^-1 X (M, M): (X'X + lambda I)^-1 = (I - G) / lambda, hence
    B_ij = G_ij / (1 - G_jj) off the diagonal, 0 on it.
K = L L' gives G = Z' Z with Z = L^-1 X (U, M): G is made in blocks of rows and never whole. Shapes: U users, M items, K neighbours.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut, HistoryMatrix
from serving.retrieval.linear import Neighbours
from serving.system import SourceSpec

TAU_DAYS = 150.0
LAMBDA = 100.0
_BLOCK = 2048


@dataclass(frozen=True)
class Effort:
    """How much of the matrix is built."""

    least_users: int  # who had an item, for it to take part
    neighbours: int  # kept a row


FULL, FAST = Effort(5, 200), Effort(20, 80)  # 27 and 6 seconds of one core at 92 K items; new R@1000 on the choosing week .265 and .26


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """The neighbours, with less effort where a rough table will do."""
    write(cut, spec, folder, FAST if fast else FULL)


def write(cut: Cut, spec: SourceSpec, folder: Path, effort: Effort) -> None:
    """The neighbours of every item that `effort.least_users` had."""
    least = min(effort.least_users, 1 + cut.history.shape[0] // 100)  # a small world has few users of anything
    rows, history, gain = factor(cut.history, least)
    kept = min(effort.neighbours, int(spec.settings["neighbours"]), max(len(rows) - 1, 1))
    neighbours, weights = neighbours_of(history, gain, kept)
    scales = np.maximum(np.abs(weights).max(axis=1, initial=0.0), 1e-12) / np.iinfo(np.int16).max
    position_of = np.full(len(cut.catalogue), -1, np.int32)
    position_of[rows] = np.arange(len(rows), dtype=np.int32)
    Neighbours(
        rows=rows.astype(np.int32),
        position_of=position_of,
        neighbours=neighbours.astype(np.uint16) if len(rows) <= 1 << 16 else neighbours.astype(np.int32),
        weights=np.rint(weights / scales[:, None]).astype(np.int16),
        scales=scales.astype(np.float32),
        tau_days=TAU_DAYS,
    ).save(folder)


def factor(history: HistoryMatrix, least_users: int, weight: float = LAMBDA) -> tuple[NDArray, NDArray, NDArray]:
    """Item rows that take part (M,), Z (U, M) with G = Z'Z, and G's diagonal (M,)."""
    import scipy.linalg
    import scipy.sparse

    values = np.log1p(history.decay(TAU_DAYS))
    rows = np.flatnonzero(np.bincount(history.row, minlength=history.shape[1]) >= least_users)
    counted = scipy.sparse.csr_matrix((values, (history.user, history.row)), shape=history.shape)[:, rows].astype(np.float32)
    kernel = (counted @ counted.T).toarray().astype(np.float64)  # (U, U)
    kernel[np.diag_indices_from(kernel)] += weight
    lower = scipy.linalg.cholesky(kernel, lower=True, overwrite_a=True).astype(np.float32)
    solved = scipy.linalg.solve_triangular(lower, counted.toarray(), lower=True, overwrite_b=True)  # (U, M)
    return rows, solved, np.square(solved).sum(axis=0)


def neighbours_of(solved: NDArray, gain: NDArray, kept: int) -> tuple[NDArray, NDArray]:
    """The `kept` entries of every row of B that are greatest in size: positions (M, K), values (M, K), greatest first."""
    import torch

    matrix = torch.from_numpy(solved)
    scale = 1 / (1 - torch.from_numpy(gain))
    positions, values = [], []
    for begin in range(0, matrix.shape[1], _BLOCK):
        own = torch.arange(begin, min(begin + _BLOCK, matrix.shape[1]))
        block = (matrix[:, own].T @ matrix) * scale  # (block, M)
        block[own - begin, own] = 0
        best = torch.topk(block.abs(), kept, dim=1).indices
        positions.append(best.int().numpy())
        values.append(block.gather(1, best).numpy())
    if not positions:
        return np.empty((0, kept), np.int32), np.empty((0, kept), np.float32)
    return np.concatenate(positions), np.concatenate(values)
