"""Next-item evaluation (Ludewig & Jannach 2018): a session is told item by item, and each time asked what comes next.

Every item of a session but its first is one question, of what came before it. Errors are by session: its questions resemble each other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from serving.bundle.arrays import Rows


class NextItem(NamedTuple):
    """What a list of `k` was worth, mean over all questions, with the standard error over sessions."""

    hit_rate: float  # the next item is among the first k
    hit_rate_error: float
    mrr: float  # one over its place, 0 where it is not
    mrr_error: float
    questions: int
    sessions: int


def next_item(listed: Callable[[Rows], Rows], sessions: Sequence[Rows], k: int = 20) -> NextItem:
    """Judge lists. `listed`: item rows so far, oldest first, to what is offered next, best first. `sessions`: each one's rows in order.

    Raises `ValueError` where no session has two items.
    """
    asked = [session for session in sessions if len(session) > 1]
    if not asked:
        raise ValueError("no session has two items: there is no next item to judge by")
    hits, worth = [], []
    for session in asked:
        places = [np.flatnonzero(listed(session[:at])[:k] == session[at]) for at in range(1, len(session))]
        hits.append([float(len(found) > 0) for found in places])
        worth.append([1.0 / (1 + int(found[0])) if len(found) else 0.0 for found in places])
    return NextItem(*_mean(hits), *_mean(worth), sum(map(len, hits)), len(asked))


def _mean(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The mean of all values, and its standard error where those of one group move together (a ratio's, by linearisation)."""
    sums, sizes = np.array([sum(group) for group in values]), np.array([len(group) for group in values])
    mean = sums.sum() / sizes.sum()
    spread = np.square(sums - mean * sizes).sum()
    count = len(values)
    return float(mean), float(np.sqrt(spread * count / max(count - 1, 1)) / sizes.sum())
