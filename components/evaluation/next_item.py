"""What follows in a session: the rival that looks at its newest item alone (co-occurrence), which a source of sessions has to keep up with.

Judged is the item chosen next, one a session (`components/features/asked.py`), by MRR@20 and Recall@20 as Ludewig & Jannach (2018,
https://arxiv.org/abs/1803.09587) do. Shapes: U asked, I items, K list length, S sessions before the cut, D newest items.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.cut import HistoryMatrix
from components.evaluation.metrics import NOTHING, Lists, Target
from components.evaluation.orders import Orders
from components.evaluation.truth import Truth, entries_of

TOGETHER = "had with the last item"
_ITEMS = 500  # newest items at once: some may have been had beside most others


def had_together(truth: Truth, length: int, barred: NDArray[np.bool_], without: Target) -> Lists:
    """For each who is asked the items most had by those who had their newest item; that one, `barred` (I,) and their `without` left out."""
    import scipy.sparse

    past = HistoryMatrix.of(truth.known, truth.catalogue)
    had = scipy.sparse.csr_matrix((np.ones(len(past.row), np.float32), (past.user, past.row)), shape=past.shape)
    by_item, newest = had.T.tocsr(), newest_items(truth)
    distinct, of = np.unique(newest, return_inverse=True)
    lists = np.full((len(newest), length), NOTHING, np.int32)
    for begin in range(int(distinct[:1].sum() < 0), len(distinct), _ITEMS):  # who had nothing has no newest item
        some = distinct[begin : begin + _ITEMS]
        users = np.flatnonzero((of >= begin) & (of < begin + _ITEMS))
        beside = _beside(some, (by_item[some] @ had).tocoo(), barred)
        lists[users] = beside.without(of[users] - begin, without.of_users(users), length)
    return lists


def _beside(some: NDArray[np.int64], counts: Any, barred: NDArray[np.bool_]) -> Orders:
    """For each of the items (D,) those had beside it most often first, by `counts` (D, I), a sparse matrix; barred ones left out."""
    kept = (some[counts.row] != counts.col) & ~barred[counts.col]
    at, item, count = counts.row[kept], counts.col[kept], counts.data[kept]
    order = np.lexsort((item, -count, at))
    return Orders(item[order].astype(np.int64), np.cumsum(np.bincount(at, minlength=len(some))))


def newest_items(truth: Truth) -> NDArray[np.int64]:
    """(U,) the row each had last before they were asked; -1 where they had nothing of the catalogue."""
    owner, entries = entries_of(truth.states.ends, truth.users)
    rows = truth.catalogue.rows_of_keys(np.asarray(truth.states.keys)[entries])
    owner, entries, rows = owner[rows >= 0], entries[rows >= 0], rows[rows >= 0]
    order = np.lexsort((-entries, np.asarray(truth.states.last_day)[entries], owner))  # of one moment the first
    found = np.full(len(truth.users), -1, np.int64)
    found[owner[order]] = rows[order]  # the last of each stays
    return found
