"""What moved each shown item most: what every group of features added to its score, told by leaving it out.

A part is the item's logit less its logit with the group set to its mean over the candidates the light ranker kept, so "more than the best
others". The session's lift stands outside the networks and is added exactly. Of newcomers, whom the fused rank orders, the parts are those
of its logarithm. Shapes: C candidates, K kept by the light ranker, N shown, G groups, Fx cross features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import AFFINITY_FEATURES, CROSS_FEATURES, OWN_FEATURES, PLAN_FEATURES, SESSION_FEATURES
from serving.bundle.arrays import Floats, Mask, Rows
from serving.query import Candidates, Query
from serving.ranking.features import cross_features
from serving.ranking.rankers import UserSide, score
from serving.ranking.scoring import Scores, Scoring, session_lift
from serving.retrieval.reasons import HAD, PROMOTION, SESSION, SOURCES, TASTE

ITEM = "item"  # the item's own half
WEIGHED = 50  # entries of a list that are told of: a reader looks at a page, and a part costs a pass through the ranker
_OF = {HAD: OWN_FEATURES, TASTE: AFFINITY_FEATURES, PROMOTION: PLAN_FEATURES, SESSION: SESSION_FEATURES}
_COLUMNS = {part: np.arange(CROSS_FEATURES.index(names[0]), CROSS_FEATURES.index(names[-1]) + 1) for part, names in _OF.items()}


def moved(
    scoring: Scoring, query: Query, side: UserSide, pool: Candidates, scores: Scores, rows: Rows, item: bool = False
) -> dict[int, dict[str, float]]:
    """Of the first `WEIGHED` shown `rows` (N,) that are in the pool and that the session touches: part -> what it added.

    `item`: also what the item's own half did, and of all of them.
    """
    shown = rows[:WEIGHED]
    cross = scores.cross if scores.cross is not None else cross_features(query, pool)
    lift = scores.lift if scores.lift is not None else session_lift(cross, pool.fused if scores.by_fusion else None)
    if not (item or scores.by_fusion):  # what the session does not touch is told by the history and the fused rank
        touched = np.flatnonzero(lift)
        at = touched[(pool.rows[touched] == shown[:, None]).any(axis=0)]
    else:
        at = np.flatnonzero(np.isin(pool.rows, shown))
    found: dict[int, dict[str, float]] = {}
    if not len(at):
        return found
    if scores.by_fusion:
        return _by_row(pool.rows[at], {SESSION: _above(lift, at), SOURCES: _above(np.log(np.maximum(pool.fused, 1e-9)), at)})
    heavy = np.zeros(len(pool), np.bool_)
    if scores.heavy is not None:
        heavy[scores.kept] = True
    usual = cross[scores.kept].mean(axis=0)  # (Fx,)
    for name, chosen in (("heavy", at[heavy[at]]), ("light", at[~heavy[at]])):
        if len(chosen):
            columns = _columns(cross.shape[1], len(query.learning.cross))
            parts = _added(scoring, name, side, pool.rows[chosen], cross[chosen], usual, pool.seen[chosen], columns)
            parts[SESSION] = parts[SESSION] + session_lift(cross[chosen]) - session_lift(usual[None])
            if item:
                parts[ITEM] = _of_item(scoring, name, side, pool.rows[chosen], pool.rows[scores.kept], cross[chosen], pool.seen[chosen])
            found |= _by_row(pool.rows[chosen], parts)
    return found


def _columns(width: int, own: int) -> dict[str, NDArray[np.intp]]:
    """Which of the `width` columns tell each part; a system's `own`, the last, are of taste."""
    begin, end = _COLUMNS[SESSION][-1] + 1, width - own
    return _COLUMNS | {TASTE: np.append(_COLUMNS[TASTE], np.arange(end, width)), SOURCES: np.arange(begin, end)}


def _added(
    scoring: Scoring, name: str, side: UserSide, rows: Rows, cross: Floats, mean: Floats, seen: Mask, of: Mapping[str, NDArray[np.intp]]
) -> dict[str, Floats]:  # fmt: skip
    """Each part (N,) by one pass over the items as they are, and once more for each group left out."""
    forms = np.repeat(cross[None], 1 + len(of), axis=0)  # (1 + G, N, Fx)
    for form, columns in zip(forms[1:], of.values(), strict=True):
        form[:, columns] = mean[columns]
    ranker = scoring.rankers.heavy if name == "heavy" else scoring.rankers.light
    logits = ranker(side, np.tile(rows, len(forms)), forms.reshape(-1, cross.shape[1]))
    own = scoring.heads.logit(logits, np.tile(seen, len(forms))).reshape(len(forms), -1)  # (1 + G, N)
    return dict(zip(of, own[0] - own[1:], strict=True))


def _of_item(
    scoring: Scoring, name: str, side: UserSide, rows: Rows, among: Rows, cross: Floats, seen: Mask
) -> Floats:  # fmt: skip
    """(N,) what an item's half added, against the mean half of those kept."""
    rankers, user = scoring.rankers, getattr(side, name)
    session = rankers.sessions[name]
    usual = rankers.item_halves(name, among).mean(axis=0, keepdims=True)
    halves = rankers.item_halves(name, rows), np.repeat(usual, len(rows), axis=0)
    as_is, without = (score(session, half + user, cross) for half in halves)
    return scoring.heads.logit(as_is, seen) - scoring.heads.logit(without, seen)


def _above(values: Floats, at: NDArray[np.intp]) -> Floats:
    return np.asarray(values[at] - values.mean())


def _by_row(rows: Rows, parts: Mapping[str, Sequence[float] | Floats]) -> dict[int, dict[str, float]]:
    return {row: {part: float(values[n]) for part, values in parts.items()} for n, row in enumerate(rows.tolist())}
