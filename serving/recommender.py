"""From a user to a short list: retrieve, filter, rank, arrange, say why.

`Recommender.recommend` is the full path and raises what goes wrong: evaluation and batch call it. A server calls
`serving.ladder.Ladder.answer`, which runs the same stages under time budgets and always answers.
The cut between `retrieve` and `rank` is where split serving puts a wire: query and candidates go in, the same list comes out.
Shapes: C candidates, K kept by the light ranker, k answer length.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving import kernel
from serving.arrange import Rules
from serving.bundle import BadBundle, Bundle
from serving.catalogue import Catalogue
from serving.features import cross_features, request_features, session_lift
from serving.fusion import RANK_OFFSET, retrieve
from serving.index import descending
from serving.query import Answer, Answered, Candidates, Floats, Query, Request, Rows
from serving.rankers import Rankers, UserSide, final_scores
from serving.reasons import Reasons
from serving.slate import Arranged, Asked, Move, Ranked
from serving.sources import Source, load_sources
from serving.state import UserState, schema_key
from serving.system import System

# Choosing week, users made cold, fast rankers: NDCG@10 by fusion and by the rankers .159 .038 after no visit, .173 .135 after one,
# .204 .184 after two, .225 .204 after three, .240 .240 after five; better rankers need fewer, so only the clear cases, none and one, are
# taken from them (`Query.newcomer`).


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


class Trace(NamedTuple):
    """What the exposure log keeps of an answer, enough to explain it and to give it again."""

    query: Query
    candidates: Candidates | None
    scores: Scores | None
    moves: tuple[Move, ...]
    rung: str = "full"
    pool_day: float = 0.0  # the moment the pool was made for; earlier than the request's when it came from the cache
    side_day: float = 0.0  # the same of the user's side
    base: Rows | None = None  # the list a lower rung started from


class Recommender:
    """One bundle, ready to answer. Raises `BadBundle` when the bundle was packed for another system.

    `sources`, `rankers`, `catalogue`: instead of the bundle's own, when items were posted since, or to share what is loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        system: System,
        *,
        sources: Sequence[Source] | None = None,
        rankers: Rankers | None = None,
        catalogue: Catalogue | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if bundle.manifest["system"] != system.name:
            packed_for = bundle.manifest["system"]
            raise BadBundle(f"bundle {bundle.digest} was packed for system {packed_for!r}, not {system.name!r}: give the other one")
        self.bundle, self.system, self.clock = bundle, system, clock
        self.catalogue = catalogue if catalogue is not None else bundle.catalogue
        self.sources = tuple(sources) if sources is not None else load_sources(system.sources, bundle.folder / "sources", self.catalogue)
        self.rankers = rankers if rankers is not None else Rankers.load(bundle.folder)
        self.rules = Rules(system.rules, self.catalogue, system.answer)
        self.reasons = Reasons(system, self.sources)
        self._user_schema = schema_key(bundle.user_features)

    def query(self, request: Request, state: UserState) -> Query:
        """The question on this bundle's rows. User features made under other names than the bundle's are not read."""
        if len(state.features) and state.schema_key != self._user_schema:
            state = replace(state, features=state.features[:0], schema_key=0)
        return Query(request, state, self.catalogue, self.system.learning)

    def request(self, query: Query) -> UserSide:
        """The user's side of all models, made once a request."""
        bag = next((source.history_bag(query) for source in self.sources if hasattr(source, "history_bag")), None)
        return self.rankers.request(request_features(query), bag)

    def retrieve(self, query: Query, side: UserSide | None = None) -> Candidates:
        """About `system.pool` candidates that no hard rule bars, best fused rank first; of a hybrid system, the user's batch list."""
        batch = self.bundle.fallback.user(query.request.user_id) if self.system.hybrid else None
        if batch is not None and len(batch):
            return self._batched(query, batch)
        vector = (side or self.request(query)).vector
        pool = max(self.system.pool, query.request.k)
        return retrieve(query, self.sources, pool, vector if len(vector) else None, (self.rules.flags, self.rules.hard_bits))

    def light(self, query: Query, side: UserSide, pool: Candidates) -> Scores:
        """Score all, keep the best `system.light`; ties by fused rank."""
        cross, newcomer = cross_features(query, pool), query.newcomer
        lift = session_lift(cross) if len(query.session[0]) else None
        prior = None
        if newcomer or query.request.discover:
            fused = pool.fused if lift is None else pool.fused * np.exp(lift)
            prior = None if newcomer else rank_share(fused)
        light = fused if newcomer else self._worth(self.rankers.light(side, pool.rows, cross), pool.seen, lift)
        if prior is not None:
            light = rank_share(light) + prior
        order = descending(light)
        return Scores(light, order[: self.system.light], None, cross, order, newcomer, prior, lift)

    def heavy(self, side: UserSide, pool: Candidates, scores: Scores) -> Scores:
        """The heavy ranker's scores of those kept."""
        if scores.by_fusion:
            return scores._replace(heavy=scores.light[scores.kept])
        assert scores.cross is not None
        logits = self.rankers.heavy(side, pool.rows, scores.cross, scores.kept)
        heavy = self._worth(logits, pool.seen, scores.lift, scores.kept)
        if scores.prior is not None:
            heavy = rank_share(heavy) + scores.prior[scores.kept]
        return scores._replace(heavy=heavy)

    def rank(self, query: Query, pool: Candidates, side: UserSide | None = None) -> Scores:
        """Light over the pool, heavy over what it keeps."""
        side = side or self.request(query)
        return self.heavy(side, pool, self.light(query, side, pool))

    def order(self, pool: Candidates, scores: Scores) -> Ranked:
        """Heavy order, then light order. Scores never rise down the list, so the light ones are cut off at the last heavy one."""
        order = scores.order if scores.order is not None else descending(scores.light)
        if scores.heavy is not None:
            head = descending(scores.heavy)
            merged = kernel.merge(scores.light, order, scores.heavy, head, pool.rows, pool.seen)
            if merged is not None:
                return Ranked(*merged)
        values = scores.light.take(order)
        if scores.heavy is not None:
            kept = len(head)
            order = np.concatenate((scores.kept.take(head), order[kept:]))  # those kept are the first of the light order
            values[:kept] = scores.heavy.take(head)
            np.minimum(values[kept:], values[kept - 1 : kept], out=values[kept:])
        return Ranked(pool.rows.take(order), values, pool.seen.take(order))

    def arrange(self, query: Query, ranked: Ranked) -> Arranged:
        """The first k under the rules; filled up from the popular and static lists, then the catalogue, where the pool is too small."""
        request = query.request
        asked = Asked(request.k, request.at_day, request.request_id, request.discover)
        arranged = self.rules.arrange(ranked, asked)
        if len(arranged.rows) >= request.k:
            return arranged
        for rows in self._more(query):
            ranked = _extended(ranked, rows, query)
            arranged = self.rules.arrange(ranked, asked)
            if len(arranged.rows) >= request.k:
                break
        return arranged

    def recommend(self, request: Request, state: UserState) -> Answer:
        """The full rung, without a clock over it. What goes wrong is raised."""
        began = self.clock()
        query = self.query(request, state)
        side = self.request(query)
        at_side = self.clock()
        pool = self.retrieve(query, side)
        at_pool = self.clock()
        scores = self.rank(query, pool, side)
        at_rank = self.clock()
        arranged = self.arrange(query, self.order(pool, scores))
        trace = Trace(query, pool, scores, arranged.moves, pool_day=request.at_day, side_day=request.at_day)
        answer = self.answer(trace, arranged)
        ended = self.clock()
        stages = {"request": at_side - began, "retrieve": at_pool - at_side, "rank": at_rank - at_pool, "arrange": ended - at_rank}
        answer.took_ms, answer.stage_ms = (ended - began) * 1e3, {name: seconds * 1e3 for name, seconds in stages.items()}
        return answer

    def answer(self, trace: Trace, arranged: Arranged, degraded: dict[str, str] | None = None) -> Answer:
        """The arranged rows with their sources and a sentence each."""
        told = self.reasons.tell(trace.query, trace.candidates, arranged.rows)
        ids = self.catalogue.item_ids[arranged.rows].tolist()
        entries = zip(ids, arranged.rows.tolist(), arranged.scores.tolist(), told, strict=True)
        items = tuple([Answered(row, item_id.decode(), score, sources, reason) for item_id, row, score, (sources, reason) in entries])
        return Answer(trace.query.request.request_id, self.bundle.digest, items, degraded, trace=trace)

    def _batched(self, query: Query, rows: Rows) -> Candidates:
        """The batch list as a pool: its order is the fused rank, no source is asked, so the rankers read none of their scores."""
        rows = rows[self.rules.permits(rows) & ~np.isin(rows, query.excluded)]
        shape = (len(rows), len(self.sources))
        fused = (1 / (RANK_OFFSET + np.arange(len(rows)))).astype(np.float32)
        ranks = np.full(shape, np.inf, np.float32)
        return Candidates(rows, np.zeros(shape, np.float32), ranks, fused, np.isin(rows, query.history_rows))

    def _worth(self, logits: Floats, seen: NDArray[np.bool_], lift: Floats | None, at: Rows | None = None) -> Floats:
        return final_scores(logits, seen, self.system.objectives, lift, at)

    def _more(self, query: Query) -> Iterator[Rows]:
        fallback = self.bundle.fallback
        yield fallback.popular(query.request.region or query.state.region)
        yield fallback.static()
        yield np.arange(len(self.catalogue), dtype=np.int32)


def rank_share(scores: Floats) -> Floats:
    """(C,) what a list adds in reciprocal-rank fusion: 1 / (60 + 0-based rank), ties by position.

    Of discoveries, the rankers' order fused with that of the sources: NDCG@10 .0269 on the choosing week, .0176 and .0251 of either alone.
    """
    shares = np.empty(len(scores), np.float32)
    shares[descending(scores)] = 1 / (RANK_OFFSET + np.arange(len(scores)))
    return shares


def listed(rows: Rows, query: Query) -> Ranked:
    """A plain list as ranked candidates: the first scores 1, the n-th 1/n."""
    scores = (1 / np.arange(1, len(rows) + 1)).astype(np.float32)
    return Ranked(rows, scores, np.isin(rows, query.history_rows))


def _extended(ranked: Ranked, rows: Rows, query: Query) -> Ranked:
    """The list with `rows` it lacks at its end, at its lowest score."""
    fresh = rows[~np.isin(rows, ranked.rows)]
    lowest = ranked.scores[-1] if len(ranked.scores) else np.float32(0)
    return Ranked(
        np.concatenate((ranked.rows, fresh)),
        np.concatenate((ranked.scores, np.full(len(fresh), lowest, np.float32))),
        np.concatenate((ranked.seen, np.isin(fresh, query.history_rows))),
    )
