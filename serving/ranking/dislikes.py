"""What a user likes less stands lower, and so does its like: on every rung, before the rules.

Shapes: N ranked candidates, D disliked items.
"""

import numpy as np

from serving.bundle.catalogue import Catalogue
from serving.query import Query
from serving.ranking.scoring import SESSION_LIFT
from serving.rules.slate import Move, Ranked

_TOLD = 10  # of a list whose move is told


def lowered(query: Query, ranked: Ranked) -> tuple[Ranked, tuple[Move, ...]]:
    """The list with every score divided by what the dislikes say against it, in its new order; and what left the first `_TOLD` by it.

    A stated belief, as `session_lift` is for a click, the other way and for good: one dislike makes the item's odds a 32nd, those of its
    type 0.44 and of its brand 0.81; more of one type say more by their logarithm.
    """
    disliked = query.disliked
    if not len(disliked) or not len(ranked.rows):
        return ranked, ()
    against = _against(query.catalogue, ranked, disliked)  # (N,)
    if not against.any():
        return ranked, ()
    scores = (ranked.scores * np.exp(-against)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    gone = np.setdiff1d(ranked.rows[:_TOLD], ranked.rows[order[:_TOLD]])
    moves = (Move("dislike", "moved", tuple(gone.tolist()), "the user likes it, or its like, less"),) if len(gone) else ()
    return Ranked(ranked.rows[order], scores[order], ranked.seen[order]), moves


def _against(catalogue: Catalogue, ranked: Ranked, disliked: np.ndarray) -> np.ndarray:
    """(N,) log-odds against each item."""
    own = np.isin(ranked.rows, disliked) * np.log(2.0)
    found = [own]
    for codes in (catalogue.category[:, -1], catalogue.brand):
        counts = np.bincount(codes[disliked], minlength=int(codes.max(initial=0)) + 1).astype(np.float64)
        counts[0] = 0  # unknown
        found.append(np.log1p(counts)[codes[ranked.rows]])
    against: np.ndarray = np.stack(found, axis=1) @ SESSION_LIFT.astype(np.float64)
    return against
