"""Fits `serving/retrieval/linear.py`: EASE (Steck 2019) by the smaller side, and by ALS's factors where neither side is small.

With X (U, M) the log1p of decayed counts and G = X'(XX' + lambda I)^-1 X = I - lambda (X'X + lambda I)^-1,
    B_ij = G_ij / (1 - G_jj) off the diagonal, 0 on it.
Fewer users than items: K = XX' + lambda I (U, U) = L L' gives G = Z' Z with Z = L^-1 X (U, M), made in blocks of rows and never whole.
Fewer items: G itself (M, M), up to `MOST_DENSE` of them. Beyond that Y (M, F) of implicit ALS stands for X':
    G = Y (Y'Y + weight I)^-1 Y' = Z'Z with Z (F, M), for the `MOST_ITEMS` that most users had.
On the shop's choosing week, alone (EASE, ALS): new R@100 .076, .087, new R@1000 .264, .275; all R@1000 .537, .428: what
is had again has no sharp place among 64 factors. Shapes: U users, M items, K neighbours, F factors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut, HistoryMatrix
from components.retrieval.als import item_factors
from serving.retrieval.linear import Neighbours
from serving.system import SourceSpec

TAU_DAYS = 150.0
LAMBDA = 100.0
MOST_WORK = 5e12  # multiplications of EASE by its users: minutes of a core, 1.6e12 on the shop
MOST_DENSE = 10_000  # items of a dense items x items matrix: 0.8 GB
MOST_ITEMS = 250_000  # with neighbours by ALS: 300 MB of them, and half an hour of a core
FACTORS, TURNS, ALS_WEIGHT, FACTOR_WEIGHT = 64, 6, 1.0, 1.0
_BLOCK, _BLOCK_NUMBERS = 2048, 1 << 26  # rows of G at once, fewer where they are long: 256 MB


@dataclass(frozen=True)
class Effort:
    """How much of the matrix is built."""

    least_users: int  # who had an item, for it to take part
    neighbours: int  # kept a row
    most_work: float = MOST_WORK
    most_dense: int = MOST_DENSE


FULL, FAST = Effort(5, 200), Effort(20, 80)  # 27 and 6 seconds of one core at 92 K items; new R@1000 on the choosing week .265 and .26


@dataclass(frozen=True)
class Gram:
    """G a few rows at a time."""

    rows: Callable[[NDArray[np.intp]], Any]  # of these positions (b,): a tensor (b, M)
    gain: NDArray[np.float32]  # (M,) its diagonal

    @classmethod
    def of(cls, factors: NDArray[np.float32]) -> "Gram":
        """Of Z (R, M) with G = Z'Z."""
        import torch

        matrix = torch.from_numpy(factors)
        return cls(lambda own: matrix[:, torch.from_numpy(own)].T @ matrix, np.square(factors).sum(axis=0))


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """The neighbours, with less effort where a rough table will do."""
    write(cut, spec, folder, FAST if fast else FULL)


def write(cut: Cut, spec: SourceSpec, folder: Path, effort: Effort) -> None:
    """The neighbours of every item that `effort.least_users` had."""
    least = min(effort.least_users, 1 + cut.history.shape[0] // 100)  # a small world has few users of anything
    rows, gram = gram_of(cut.history, least, effort)
    kept = min(effort.neighbours, int(spec.settings["neighbours"]), max(len(rows) - 1, 1))
    neighbours, weights = neighbours_of(gram, kept)
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


def gram_of(history: HistoryMatrix, least_users: int, effort: Effort, weight: float = LAMBDA) -> tuple[NDArray[np.intp], Gram]:
    """Item rows that take part (M,), and their G by whichever way is cheap enough."""
    import scipy.sparse

    values = np.log1p(history.decay(TAU_DAYS))
    users = np.bincount(history.row, minlength=history.shape[1])
    rows = np.flatnonzero(users >= least_users)
    counted = scipy.sparse.csr_matrix((values, (history.user, history.row)), shape=history.shape)[:, rows].astype(np.float32)
    count, items = counted.shape
    if items < count and items <= effort.most_dense:
        return rows, by_items(counted, weight)
    if count <= items and float(count) * items * (count + items) <= effort.most_work:
        return rows, Gram.of(by_users(counted, weight))
    most = np.sort(np.argsort(-users[rows], kind="stable")[:MOST_ITEMS])
    return rows[most], Gram.of(by_factors(counted[:, most]))


def by_users(counted: Any, weight: float) -> NDArray[np.float32]:
    """Z (U, M) with G = Z'Z."""
    import scipy.linalg

    lower = scipy.linalg.cholesky(_products(counted, weight), lower=True, overwrite_a=True).astype(np.float32)  # (U, U)
    return scipy.linalg.solve_triangular(lower, counted.toarray(), lower=True, overwrite_b=True)  # type: ignore[no-any-return]


def by_items(counted: Any, weight: float) -> Gram:
    """G whole, of few items and any number of users."""
    import scipy.linalg.lapack
    import torch

    lower, failed = scipy.linalg.lapack.dpotrf(_products(counted.T.tocsr(), weight), lower=True, clean=True, overwrite_a=True)  # (M, M)
    inverse, failed_too = scipy.linalg.lapack.dpotri(lower, lower=True, overwrite_c=True)
    if failed or failed_too:
        raise ValueError(f"the history's item matrix ({counted.shape[1]} items) cannot be inverted: is a count no finite number?")
    whole = torch.from_numpy((-weight * inverse).astype(np.float32))  # below the diagonal and on it
    whole += torch.tril(whole, -1).T
    whole.diagonal().add_(1)
    return Gram(lambda own: whole[torch.from_numpy(own)], whole.diagonal().numpy().copy())


def _products(rows: Any, weight: float) -> NDArray[np.float64]:
    """(R, R) of a sparse matrix's rows with each other, `weight` added to the diagonal, block by block, in the order LAPACK works in."""
    kernel, columns = np.empty((rows.shape[0], rows.shape[0]), order="F"), rows.T.tocsr()
    for begin in range(0, len(kernel), _BLOCK):
        kernel[:, begin : begin + _BLOCK] = (rows[begin : begin + _BLOCK] @ columns).toarray().T
    kernel[np.diag_indices_from(kernel)] += weight
    return kernel


def by_factors(counted: Any) -> NDArray[np.float32]:
    """Z (F, M) with G = Z'Z of the factors that implicit ALS finds."""
    import scipy.linalg

    items = item_factors(counted, min(FACTORS, *counted.shape), TURNS, ALS_WEIGHT).astype(np.float64)  # (M, F)
    lower = scipy.linalg.cholesky(items.T @ items + FACTOR_WEIGHT * np.eye(items.shape[1]), lower=True)
    return scipy.linalg.solve_triangular(lower, items.T, lower=True).astype(np.float32)  # type: ignore[no-any-return]


def neighbours_of(gram: Gram, kept: int) -> tuple[NDArray, NDArray]:
    """The `kept` entries of every row of B that are greatest in size: positions (M, K), values (M, K), greatest first."""
    import torch

    count = len(gram.gain)
    scale, step = 1 / (1 - torch.from_numpy(gram.gain)), min(_BLOCK, max(1, _BLOCK_NUMBERS // max(count, 1)))
    positions, values = [], []
    for begin in range(0, count, step):
        own = np.arange(begin, min(begin + step, count))
        block = gram.rows(own) * scale  # (block, M)
        block[np.arange(len(own)), own] = 0
        best = torch.topk(block.abs(), kept, dim=1).indices
        positions.append(best.int().numpy())
        values.append(block.gather(1, best).numpy())
    if not positions:
        return np.empty((0, kept), np.int32), np.empty((0, kept), np.float32)
    return np.concatenate(positions), np.concatenate(values)
