"""What a user is interested in, as item rows and weights: the one reading of history and session that all sources share.

Shapes: H history items, E session events, T decay constants, I items.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.arrays import Floats, Rows
from serving.native.kernel import Past
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
    best, weights = np.inf, np.zeros(len(TAUS_DAYS))  # of the pair of decays that fits best
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
    first, *others = [(decay, np.float32(share)) for decay, share in zip(query.history.decayed, mix_for(tau_days), strict=True) if share]
    total: Floats = first[0] * first[1]
    for decay, share in others:
        total += decay * share
    return total


def past(query: Query, tau_days: float) -> Past:
    """What `counts` and `interest` are made of, for the compiled loops."""
    history = query.history
    return Past(history.rows, history.decayed, _mix(tau_days), *query.session)


@lru_cache(maxsize=32)
def _mix(tau_days: float) -> Floats:
    return np.array(mix_for(tau_days), np.float32)


def interest(query: Query, tau_days: float, limit: int = 0) -> tuple[Rows, Floats]:
    """Rows and weights of history (log1p of decayed counts) and session together: (H + E,), (H + E,).

    A row may come twice (bought, and clicked now): its weights add up wherever they are summed. `limit` keeps the heaviest of the history.
    """
    rows, weights = query.history.rows, np.log(counts(query, tau_days) + 1)  # not log1p: the loops add 1 in float32
    session_rows, session_weights = query.session
    if limit and len(rows) > limit:
        kept = np.sort(descending(weights)[:limit])
        rows, weights = rows[kept], weights[kept]
    return np.concatenate((rows, session_rows)), np.concatenate((weights, session_weights))


def positions(rows: Rows, position_of: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Where each row is in a smaller universe, of those that are in it; and which those are. Rows posted after the fit are not."""
    inside = rows < len(position_of)
    inside[inside] = position_of[rows[inside]] >= 0
    return position_of[rows[inside]], inside
