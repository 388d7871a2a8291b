"""Implicit ALS (Hu, Koren, Volinsky 2008, https://doi.org/10.1109/ICDM.2008.22): factors of users and items, in time and memory linear in
what was had. For histories that EASE's dense matrices do not fit.

Each side's rows in turn minimise sum c (p - x'y)^2 + weight |x|^2 with p = 1 and c = 1 + counted where something was had, p = 0 and c = 1
elsewhere, by a few steps of conjugate gradients from where they stand (Takacs et al. 2011, https://doi.org/10.1145/2043932.2043987), over
blocks of rows. Not the package `implicit`: it would bring a second pool of threads and its warnings about it into every learning process.

Shapes: U users, M items, F factors, R rows of a side, N entries of a block.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ENTRIES = 200_000  # of a block: N x F numbers are in memory at once
STEPS = 3  # of conjugate gradients a turn
Floats = NDArray[np.float32]


def item_factors(counted: Any, factors: int, turns: int, weight: float, seed: int = 0) -> Floats:
    """(M, F) of a sparse matrix (U, M) of what was counted, after `turns` of both sides; the same seed, the same bytes."""
    random = np.random.default_rng(seed)
    users, items = (random.normal(0, 0.01, (size, factors)).astype(np.float32) for size in counted.shape)
    by_user, by_item = counted.tocsr().astype(np.float32), counted.T.tocsr().astype(np.float32)
    for _ in range(turns):
        _improve(users, items, by_user, weight)
        _improve(items, users, by_item, weight)
    return items


def _improve(own: Floats, other: Floats, counted: Any, weight: float) -> None:
    """One turn of one side, in place: `own` (R, F) given the factors of the other side; `counted` (R, other side)."""
    gram = other.T @ other + weight * np.eye(other.shape[1], dtype=np.float32)  # (F, F)
    for begin, end in blocks(counted.indptr, ENTRIES):
        own[begin:end] = _solved(own[begin:end], other, counted[begin:end], gram)


def _solved(begun: Floats, other: Floats, counted: Any, gram: Floats) -> Floats:
    """(R, F) after `STEPS` of conjugate gradients on every row at once."""
    row, vectors = np.repeat(np.arange(len(begun)), np.diff(counted.indptr)), other[counted.indices]  # (N,), (N, F)

    def weighted(values: Floats) -> Floats:  # (N,) -> (R, F): each row's sum of values times vectors
        return type(counted)((values, counted.indices, counted.indptr), counted.shape) @ other  # type: ignore[no-any-return]

    def applied(x: Floats) -> Floats:
        return x @ gram + weighted(counted.data * np.einsum("nf,nf->n", vectors, x[row]))

    x = begun
    residual = weighted(1 + counted.data) - applied(x)
    direction, size = residual, np.square(residual).sum(axis=1)  # (R, F), (R,)
    for _ in range(STEPS):
        moved = applied(direction)
        step = size / np.maximum(np.einsum("rf,rf->r", direction, moved), 1e-20)
        x, residual = x + step[:, None] * direction, residual - step[:, None] * moved
        before, size = size, np.square(residual).sum(axis=1)
        direction = residual + (size / np.maximum(before, 1e-20))[:, None] * direction
    return x


def blocks(ends: NDArray[np.integer], most: int) -> list[tuple[int, int]]:
    """Stretches of rows with about `most` entries each, of rows that begin and end at `ends` (R + 1,)."""
    edges = np.unique(np.append(np.searchsorted(ends, np.arange(0, ends[-1], most)), [0, len(ends) - 1]))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
