"""What a user is interested in, as item rows and weights: the one reading of history and session that all sources share.

Shapes: H history items, E session events, T decay constants, I items.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import Floats, Rows
from serving.query import Query
from serving.retrieval.top_k import descending

_SPAN_DAYS = 365


@lru_cache(maxsize=32)
def mix_for(tau_days: float) -> tuple[float, ...]:
    """(T,) non-negative weights of the kept decays whose sum is nearest to exp(-age / tau_days) over a year.

    A state keeps few decays; a source may ask for any other. A kept one is returned exactly.
    """
    if tau_days in TAUS_DAYS:
        return tuple(float(tau == tau_days) for tau in TAUS_DAYS)
    ages = np.arange(_SPAN_DAYS)
    basis = np.exp(-ages[:, None] / np.asarray(TAUS_DAYS))  # (365, T)
    target = np.exp(-ages / tau_days)
    left, right = 0, 1  # the pair of neighbouring decays (or the two outermost) that fits best
    best, weights = np.inf, np.zeros(len(TAUS_DAYS))
    for left in range(len(TAUS_DAYS)):
        for right in range(left + 1, len(TAUS_DAYS)):
            pair, *_ = np.linalg.lstsq(basis[:, [left, right]], target, rcond=None)
            pair = np.maximum(pair, 0)
            error = float(np.square(basis[:, [left, right]] @ pair - target).sum())
            if error < best:
                best, weights = error, np.zeros(len(TAUS_DAYS))
                weights[[left, right]] = pair
    return tuple(weights.tolist())


def counts(query: Query, tau_days: float) -> Floats:
    """(H,) counts decayed by `tau_days` at the request's time, aligned with `query.history_rows`."""
    decayed = query.history.decayed  # (T, H)
    if tau_days in TAUS_DAYS:
        return decayed[TAUS_DAYS.index(tau_days)]
    first, *more = [(share, t) for t, share in enumerate(mix_for(tau_days)) if share]
    mixed = decayed[first[1]] * np.float32(first[0])
    for share, t in more:
        mixed += decayed[t] * np.float32(share)
    return mixed


def past(query: Query, tau_days: float) -> tuple[Rows, Floats, Floats, Rows, Floats]:
    """What `counts` and `interest` are made of, for the compiled loops: rows (H,), decayed (T, H), mix (T,), the session's (E,) (E,)."""
    history = query.history
    return history.rows, history.decayed, _mix(tau_days), *query.session


@lru_cache(maxsize=32)
def _mix(tau_days: float) -> Floats:
    return np.array(mix_for(tau_days), np.float32)


def interest(query: Query, tau_days: float, limit: int = 0) -> tuple[Rows, Floats]:
    """Rows and weights of history (log1p of decayed counts) and session together: (H + E,), (H + E,).

    A row may come twice (bought, and clicked now): its weights add up wherever they are summed. `limit` keeps the heaviest of the history.
    """
    rows, weights = query.history.rows, np.log(counts(query, tau_days) + np.float32(1))
    session_rows, session_weights = query.session
    if limit and len(rows) > limit:
        kept = _heaviest(weights, limit)
        rows, weights = rows.take(kept), weights.take(kept)
        if len(session_rows):
            rows = np.concatenate((rows, session_rows))
    else:
        rows = query.rows
    return rows, np.concatenate((weights, session_weights)) if len(session_rows) else weights


def _heaviest(weights: Floats, limit: int) -> Rows:
    """Positions of the `limit` greatest of more weights, ascending; of equal ones the first."""
    kept = (weights >= np.partition(weights, -limit)[-limit]).nonzero()[0]
    return kept if len(kept) == limit else np.sort(descending(weights)[:limit])


def positions(rows: Rows, position_of: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Where each row is in a smaller universe, of those that are in it; and which those are. Rows posted after the fit are not."""
    if not len(position_of):
        return np.empty(0, np.int32), np.zeros(len(rows), np.bool_)
    at = position_of.take(rows, mode="clip")
    inside = (at >= 0) & (rows < len(position_of))
    return at.compress(inside), inside
