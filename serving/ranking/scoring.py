"""From logits to the one score an answer is ordered by."""

from typing import NamedTuple

import numpy as np

from serving.bundle.arrays import Floats, Rows
from serving.query import Candidates, Query
from serving.ranking.features import SESSION, cross_features
from serving.ranking.heads import Heads
from serving.ranking.rankers import Rankers, UserSide
from serving.retrieval.fusion import RANK_OFFSET
from serving.retrieval.top_k import descending
from serving.rules.slate import Ranked

_LEAST_FUSED = np.float32(1e-9)  # of an item that no source named
SESSION_LIFT = np.array([5.0, 1.2, 0.3], np.float32)  # a unit of each of SESSION_FEATURES; a fresh click is log1p(.6) = .47


def session_lift(cross: Floats, fused: Floats | None = None) -> Floats:
    """(C,) log-odds that the present session adds to each candidate: a fresh click makes the item's odds tenfold, its type's 1.8.

    A stated belief: rankers learnt from cuts see no session, its features never vary there, so they ignore them. `fused` (C,): where the
    fused rank scores. There sources name what goes with the item that was looked at, and not the item: it counts like the best they name.
    """
    lift: Floats = cross[:, SESSION] @ SESSION_LIFT
    if fused is not None and len(fused):
        looked_at = cross[:, SESSION.start] > 0
        lift = lift + np.where(looked_at, np.log(fused.max() / np.maximum(fused, _LEAST_FUSED)), np.float32(0))
    return lift


class Scores(NamedTuple):
    """What the rankers say of a pool. `kept`: positions of the heavy ranker's candidates, best light score first."""

    light: Floats  # (C,)
    kept: Rows  # (K,) positions in the candidates
    heavy: Floats | None  # (K,); None: the light ranker alone answers
    cross: Floats | None = None  # (C, Fx) the features both read
    order: Rows | None = None  # (C,) positions, best light score first
    by_fusion: bool = False  # too little is known of the user for the rankers: the fused rank scores
    prior: Floats | None = None  # (C,) the fused rank that has an equal say where only new items are asked for
    lift: Floats | None = None  # (C,) log-odds the session adds; None: there is no session


def rank_share(scores: Floats) -> Floats:
    """(C,) what a list adds in reciprocal-rank fusion: 1 / (60 + 0-based rank), ties by position.

    Of discoveries, the rankers' order fused with that of the sources: NDCG@10 .0269 on the choosing week, .0176 and .0251 of either alone.
    """
    shares = np.empty(len(scores), np.float32)
    shares[descending(scores)] = 1 / (RANK_OFFSET + np.arange(len(scores)))
    return shares


# Choosing week, users made cold, fast rankers: NDCG@10 by fusion and by the rankers .159 .038 after no visit, .173 .135 after one,
# .204 .184 after two, .225 .204 after three, .240 .240 after five; better rankers need fewer, so only the clear cases, none and one, are
# taken from them (`Query.few_visits`).


class Scoring:
    """Light over the pool, heavy over what it keeps: the two ranking stages, on one release's rankers."""

    def __init__(self, rankers: Rankers, heads: Heads, kept: int) -> None:
        self.rankers, self.heads = rankers, heads
        self._kept = kept  # candidates the light ranker keeps for the heavy one

    def light(self, query: Query, side: UserSide, pool: Candidates) -> Scores:
        """Score all, keep the best of them; ties by fused rank."""
        cross, few_visits = cross_features(query, pool), query.few_visits
        lift = session_lift(cross, pool.fused if few_visits else None) if len(query.session[0]) else None
        prior = None
        if few_visits or query.request.discover:
            fused = pool.fused if lift is None else np.maximum(pool.fused, _LEAST_FUSED) * np.exp(lift)
            prior = None if few_visits else rank_share(fused)
        light = fused if few_visits else self.heads.scores(self.rankers.light(side, pool.rows, cross), pool.seen, lift)
        if prior is not None:
            light = rank_share(light) + prior
        order = descending(light)
        return Scores(light, order[: self._kept], None, cross, order, few_visits, prior, lift)

    def heavy(self, side: UserSide, pool: Candidates, scores: Scores) -> Scores:
        """The heavy ranker's scores of those kept."""
        if scores.by_fusion:
            return scores._replace(heavy=scores.light[scores.kept])
        assert scores.cross is not None
        logits = self.rankers.heavy(side, pool.rows, scores.cross, scores.kept)
        heavy = self.heads.scores(logits, pool.seen, scores.lift, scores.kept)
        if scores.prior is not None:
            heavy = rank_share(heavy) + scores.prior[scores.kept]
        return scores._replace(heavy=heavy)

    def rank(self, query: Query, side: UserSide, pool: Candidates) -> Scores:
        """Light over the pool, heavy over what it keeps."""
        return self.heavy(side, pool, self.light(query, side, pool))

    def order(self, pool: Candidates, scores: Scores) -> Ranked:
        """Heavy order, then light order. Scores never rise down the list, so the light ones are cut off at the last heavy one."""
        order = scores.order if scores.order is not None else descending(scores.light)
        values = scores.light[order]
        if scores.heavy is not None:
            head, kept = descending(scores.heavy), len(scores.heavy)
            order = order.copy()
            order[:kept] = scores.kept[head]  # those kept are the first of the light order
            values[:kept] = scores.heavy[head]
            values[kept:] = np.minimum(values[kept:], values[kept - 1 : kept])
        return Ranked(pool.rows[order], values, pool.seen[order])
