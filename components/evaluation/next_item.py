"""What follows in a session: the rival that looks at its newest item alone (co-occurrence), which a source of sessions has to keep up with.

Judged is the item chosen next, one a session (`components/features/asked.py`), by MRR@20 and Recall@20 as Ludewig & Jannach (2018,
https://arxiv.org/abs/1803.09587) do. Shapes: U asked, I items, K list length, S sessions before the cut, D distinct newest items.
"""

import numpy as np
from numpy.typing import NDArray

from components.cut import HistoryMatrix
from components.evaluation.metrics import NOTHING, Lists
from components.evaluation.truth import Truth

TOGETHER = "had with the last item"


def had_together(truth: Truth, length: int, barred: NDArray[np.bool_], without: list[NDArray[np.int32]]) -> Lists:
    """For each who is asked the items most had by those who had their newest item; that one, `barred` (I,) and their `without` left out."""
    import scipy.sparse

    past = HistoryMatrix.of(truth.known, truth.catalogue)
    had = scipy.sparse.csr_matrix((np.ones(len(past.row), np.float32), (past.user, past.row)), shape=past.shape)
    newest = newest_items(truth)
    distinct, at = np.unique(newest, return_inverse=True)
    counts = (had.T.tocsr()[np.maximum(distinct, 0)] @ had).tocsr()  # (D, I)
    lists = np.full((len(newest), length), NOTHING, np.int32)
    for user in np.flatnonzero(newest >= 0).tolist():
        mine = counts[at[user]]
        rows = mine.indices[np.lexsort((mine.indices, -mine.data))]
        kept = rows[~barred[rows] & ~np.isin(rows, without[user]) & (rows != newest[user])][:length]
        lists[user, : len(kept)] = kept
    return lists


def newest_items(truth: Truth) -> NDArray[np.int64]:
    """(U,) the row each had last before they were asked; -1 where they had nothing of the catalogue."""
    found = np.full(len(truth.users), -1, np.int64)
    for place, index in enumerate(truth.users.tolist()):
        state = truth.states[index]
        rows = truth.catalogue.rows_of_keys(state.keys)
        if (rows >= 0).any():
            found[place] = rows[int(np.argmax(np.where(rows >= 0, state.last_day, -np.inf)))]
    return found
