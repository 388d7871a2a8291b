"""Which features of the user and of the item moved a shown item's score: each told by leaving it out, so a system's own views are named.

An item's feature is set to its mean over the candidates the light ranker kept; a user's to unknown, and what that does to all shown items
alike is taken off. Dear (a pass a feature): for a person who asks why. Shapes: N shown, K kept, F features.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Rows
from serving.query import Candidates, Query
from serving.ranking.features import cross_features, request_features
from serving.ranking.rankers import UserSide, score
from serving.ranking.scoring import Scores, Scoring

NAMED = 5  # features told of each item


def feature_parts(
    scoring: Scoring, query: Query, side_of: Callable[[Floats], UserSide], user_features: tuple[str, ...], pool: Candidates,
    scores: Scores, rows: Rows,
) -> dict[int, list[dict[str, Any]]]:  # fmt: skip
    """Of each of `rows` the heavy ranker judged: the features that moved it most, as `{"feature", "value", "part"}`.

    `side_of` makes the user's side of request features (Fr,), the user's own, `user_features`, last.
    """
    if scores.heavy is None or scores.by_fusion:
        return {}
    at = np.array([place for place in scores.kept.tolist() if pool.rows[place] in rows], np.intp)  # (N,)
    if not len(at):
        return {}
    cross = (scores.cross if scores.cross is not None else cross_features(query, pool))[at]
    told = request_features(query)
    judge = _Judge(scoring, pool.rows[at], cross, pool.seen[at], query)
    user = dict(zip(user_features, told[len(told) - len(user_features) :].tolist(), strict=True)) if len(query.state.features) else {}
    values = {**{name: np.full(len(at), value) for name, value in user.items()}, **judge.values}
    parts = {**_of_user(judge, side_of, told, tuple(user)), **_of_item(judge, side_of(told), pool.rows[scores.kept])}
    found = {}
    for n, row in enumerate(pool.rows[at].tolist()):
        best = sorted(parts, key=lambda name: -abs(parts[name][n]))[:NAMED]
        found[row] = [{"feature": name, "value": _plain(values[name][n]), "part": float(parts[name][n])} for name in best]
    return found


class _Judge:
    """The heavy ranker's logit of N items, with other halves in place of theirs."""

    def __init__(self, scoring: Scoring, rows: Rows, cross: Floats, seen: NDArray[np.bool_], query: Query) -> None:
        catalogue = query.catalogue
        self.rankers, self.heads = scoring.rankers, scoring.heads
        self.rows, self.cross, self.seen, self.catalogue = rows, cross, seen, catalogue
        self.features = np.asarray(catalogue.features[rows], np.float32)  # (N, Fi)
        self.codes = np.concatenate((catalogue.category[rows], catalogue.brand[rows, None]), axis=1)
        self.values: Mapping[str, Floats] = dict(zip(catalogue.feature_names, self.features.T, strict=True))

    def logits(self, side: UserSide, features: Floats) -> Floats:
        """(N,) of the heads that judge each item."""
        halves = self.rankers.item_half("heavy", features, self.codes)
        found = score(self.rankers.sessions["heavy"], halves + side.heavy, self.cross)
        return self.heads.logit(found, self.seen)


def _of_item(judge: _Judge, side: UserSide, kept: Rows) -> dict[str, Floats]:
    """(N,) a feature of the items."""
    among = np.asarray(judge.catalogue.features[kept], np.float32)
    known = np.isfinite(among)
    usual = np.where(known, among, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)  # (Fi,)
    as_is, parts = judge.logits(side, judge.features), {}
    for column, name in enumerate(judge.catalogue.feature_names):
        other = judge.features.copy()
        other[:, column] = usual[column] if known[:, column].any() else np.nan
        parts[name] = as_is - judge.logits(side, other)
    return parts


def _of_user(judge: _Judge, side_of: Callable[[Floats], UserSide], told: Floats, names: tuple[str, ...]) -> dict[str, Floats]:
    """(N,) a feature of the user, less its mean over the items."""
    as_is, parts = judge.logits(side_of(told), judge.features), {}
    for number, name in enumerate(names):
        other = told.copy()
        other[len(told) - len(names) + number] = np.nan
        moved = as_is - judge.logits(side_of(other), judge.features)
        parts[name] = moved - moved.mean()
    return parts


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
