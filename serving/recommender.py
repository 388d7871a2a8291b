"""From a user to a short list: retrieve, filter, rank, arrange, say why.

`Recommender.recommend` is the full path and raises what goes wrong: evaluation and batch call it. A server calls
`serving.resilience.ladder.Ladder.answer`, which runs the same stages under time budgets and always answers.
The cut between `retrieve` and `rank` is where split serving puts a wire: query and candidates go in, the same list comes out.
Shapes: C candidates, K kept by the light ranker, k answer length.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from feature_repo.names import request_names
from serving.bundle.arrays import Floats, Rows
from serving.bundle.bundle import BadBundle, Bundle
from serving.bundle.catalogue import Catalogue
from serving.objectives import from_settings
from serving.query import Answer, Answered, Candidates, Query, Request
from serving.ranking.attribution import moved
from serving.ranking.dislikes import lowered
from serving.ranking.features import request_features
from serving.ranking.heads import Heads
from serving.ranking.rankers import Rankers, UserSide
from serving.ranking.scoring import Scores, Scoring
from serving.restriction import others
from serving.retrieval.fusion import RANK_OFFSET, retrieve
from serving.retrieval.reasons import CACHED, FILLED_UP, Origin, Parts, Reasons
from serving.retrieval.source import Counted, Embeds, Explained, Source
from serving.retrieval.sources import load_sources
from serving.rules.arrange import Rules
from serving.rules.slate import Arranged, Move, Ranked
from serving.state.user_state import UserState, schema_key
from serving.system import System


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
    side: UserSide | None = None  # what the scores were made with


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
        self.rankers = rankers if rankers is not None else Rankers.load(bundle.folder, len(bundle.catalogue))
        self.scoring = Scoring(self.rankers, _heads(bundle, system, self.rankers), system.light_size)
        self.rules = Rules(system.rules, self.catalogue, system.answer_size)
        self._embeds = next((source for source in self.sources if isinstance(source, Embeds)), None)
        self.explained = tuple(source for source in self.sources if isinstance(source, Explained))
        self.reasons = Reasons(self.sources, bundle.fallback)
        self._user_schema = schema_key(bundle.user_features)
        learnt, asked = tuple(bundle.manifest["settings"]["learning"].get("cross", ())), system.learning.cross
        if learnt != asked:
            raise BadBundle(
                f"bundle {bundle.digest} was learnt with cross features {learnt}, {system.name}'s file names {asked}: train again"
            )
        told = len(request_names(bundle.user_features))
        if self.rankers.request_width != told:
            raise BadBundle(
                f"bundle {bundle.digest}: its models read {self.rankers.request_width} request features, {told} are named: pack again"
            )

    def query(self, request: Request, state: UserState) -> Query:
        """The question on this bundle's rows. User features made under other names than the bundle's are not read."""
        if len(state.features) and state.schema_key != self._user_schema:
            state = replace(state, features=state.features[:0], schema_key=0)
        return Query(request, state, self.catalogue, self.system.learning, self.system.verb)

    def user_side(self, query: Query) -> UserSide:
        """The user's side of all models, made once a request."""
        return self.side_of(query)(request_features(query))

    def side_of(self, query: Query) -> Callable[[Floats], UserSide]:
        """What makes the user's side of any request features, the history being as it is."""
        bag = None if self._embeds is None else self._embeds.history_embedding(query)
        return lambda features: self.rankers.user_side(features, bag)

    def retrieve(self, query: Query, side: UserSide | None = None) -> Candidates:
        """About `system.pool_size` candidates that no hard rule bars, best fused rank first; of a hybrid system, the user's batch list."""
        batch = self.batch_list(query)
        if batch is not None:
            return self._batched(query, batch)
        vector = (side or self.user_side(query)).vector
        size = max(self.system.pool_size, query.request.k)
        pool = retrieve(query, self.sources, size, vector if len(vector) else None, (self.rules.flags, self.rules.hard_bits))
        return self._with_few(query, pool, size) if len(query.refused) else pool

    def batch_list(self, query: Query) -> Rows | None:
        """What the last `shortlist batch` found for the user of a hybrid system; None where it knew nobody of that name."""
        if not self.system.hybrid or query.request.erased:
            return None
        rows = self.bundle.fallback.user(query.request.user_id)
        return rows if rows is not None and len(rows) else None

    def _with_few(self, query: Query, pool: Candidates, size: int) -> Candidates:
        """The pool, and where no more than a pool's worth of items is asked for, behind it those that no source returned."""
        asked = others(len(self.catalogue), query.excluded)
        rest = asked[self.rules.permits(asked) & np.isin(asked, pool.rows, invert=True)]
        return pool if len(pool) + len(rest) > size else joined(pool, self._unranked(query, rest))

    def _unranked(self, query: Query, rows: Rows) -> Candidates:
        """Items that no source returned."""
        shape = (len(rows), len(self.sources))
        ranks = np.full(shape, np.inf, np.float32)
        return Candidates(rows, np.zeros(shape, np.float32), ranks, np.zeros(len(rows), np.float32), np.isin(rows, query.history_rows))

    def arrange(self, query: Query, ranked: Ranked) -> Arranged:
        """The first k under the rules; filled up from the popular and static lists, then the catalogue, where the pool is too small."""
        arranged = self._arranged(query, ranked)
        if len(arranged.rows) >= query.request.k:
            return arranged
        for rows in self._more(query):
            ranked = _extended(ranked, rows, query)
            arranged = self._arranged(query, ranked)
            if len(arranged.rows) >= query.request.k:
                break
        return arranged

    def _arranged(self, query: Query, ranked: Ranked) -> Arranged:
        """Under the rules, what the user likes less lowered before."""
        ranked, moves = lowered(query, _asked_for(query, ranked))
        arranged = self.rules.arrange(ranked, query.request, query.withheld if self.rules.pins else query.hidden)
        return arranged._replace(moves=(*moves, *arranged.moves)) if moves else arranged

    def barred_only(self, query: Query, ranked: Ranked) -> Arranged:
        """The first k that no bar holds back, filled up from the catalogue: what is left where the other rules or the lists fail."""
        arranged = self.rules.barred_only(ranked, query.request, query.withheld)
        if len(arranged.rows) < query.request.k:
            rest = np.arange(len(self.catalogue), dtype=np.int32)
            arranged = self.rules.barred_only(_extended(ranked, rest, query), query.request, query.withheld)
        return arranged

    def recommend(self, request: Request, state: UserState) -> Answer:
        """The full rung, without a clock over it. What goes wrong is raised."""
        began = self.clock()
        query = self.query(request, state)
        side = self.user_side(query)
        at_side = self.clock()
        pool = self.retrieve(query, side)
        at_pool = self.clock()
        scores = self.scoring.rank(query, side, pool)
        at_rank = self.clock()
        arranged = self.arrange(query, self.scoring.order(pool, scores))
        trace = Trace(query, pool, scores, arranged.moves, pool_day=request.at_day, side_day=request.at_day, side=side)
        answer = self.answer(trace, arranged)
        ended = self.clock()
        stages = {"user_side": at_side - began, "retrieve": at_pool - at_side, "rank": at_rank - at_pool, "arrange": ended - at_rank}
        answer.took_ms, answer.stage_ms = (ended - began) * 1e3, {name: seconds * 1e3 for name, seconds in stages.items()}
        return answer

    def answer(self, trace: Trace, arranged: Arranged, degraded: dict[str, str] | None = None) -> Answer:
        """The arranged rows with their sources and a sentence each."""
        told = self.reasons.tell(trace.query, trace.candidates, arranged.rows, self._moved(trace, arranged.rows), self._origin(trace))
        ids = self.catalogue.item_ids[arranged.rows].tolist()
        entries = zip(ids, arranged.rows.tolist(), arranged.scores.tolist(), told, strict=True)
        items = tuple([Answered(row, item_id.decode(), score, sources, reason) for item_id, row, score, (sources, reason) in entries])
        return Answer(trace.query.request.request_id, self.bundle.digest, items, degraded, trace=trace)

    def wordless(self, trace: Trace, arranged: Arranged, degraded: dict[str, str] | None = None) -> Answer:
        """The arranged rows without sources and sentences, for when those cannot be told."""
        ids = [self.catalogue.item_id(row) for row in arranged.rows.tolist()]
        entries = zip(ids, arranged.rows.tolist(), arranged.scores.tolist(), strict=True)
        items = tuple([Answered(row, item_id, score, (), "") for item_id, row, score in entries])
        return Answer(trace.query.request.request_id, self.bundle.digest, items, degraded, trace=trace)

    def _moved(self, trace: Trace, rows: Rows) -> Mapping[int, Parts]:
        """What moved each of the rows, where a session may have; else the history and the sources' shares of the fused rank say it."""
        if trace.candidates is None or trace.scores is None or trace.side is None or not len(trace.query.session[0]):
            return {}
        return moved(self.scoring, trace.query, trace.side, trace.candidates, trace.scores, rows)

    def _origin(self, trace: Trace) -> Origin | None:
        """Where the list of a lower rung came from."""
        if trace.base is None:
            return None
        names = {"cached": CACHED, "linear": self.explained[0].spec.kind if self.explained else FILLED_UP}
        return Origin(names.get(trace.rung, FILLED_UP), trace.base)

    def _batched(self, query: Query, rows: Rows) -> Candidates:
        """The batch list as a pool: its order is the fused rank, no source is asked, so the rankers read none of their scores.

        Raises `ValueError` where it names items the bundle lacks: the lists' pages may be spoilt while a server runs.
        """
        outside = rows[(rows < 0) | (rows >= len(self.catalogue))]
        if len(outside):
            raise ValueError(f"the user's batch list names row {outside[0]} of {len(self.catalogue)} items: fetch the bundle again")
        rows = rows[self.rules.permits(rows) & ~np.isin(rows, query.excluded)]
        return replace(self._unranked(query, rows), fused=(1 / (RANK_OFFSET + np.arange(len(rows)))).astype(np.float32))

    def _more(self, query: Query) -> Iterator[Rows]:
        fallback = self.bundle.fallback
        yield fallback.popular(query.request.region or query.state.region)
        yield fallback.static()
        if query.request.restricted:  # of what was asked for those lists may hold little
            yield from (source.counted(query) for source in self.sources if isinstance(source, Counted))
        yield np.arange(len(self.catalogue), dtype=np.int32)


def joined(pool: Candidates, more: Candidates) -> Candidates:
    """Two pools, one behind the other."""
    both = [(getattr(pool, part.name), getattr(more, part.name)) for part in fields(Candidates)]
    return Candidates(*(np.concatenate(pair) for pair in both)) if len(more) else pool


def _asked_for(query: Query, ranked: Ranked) -> Ranked:
    """The list without what the question leaves out."""
    if not len(query.refused):
        return ranked
    kept = np.isin(ranked.rows, query.refused, invert=True)
    return Ranked(ranked.rows[kept], ranked.scores[kept], ranked.seen[kept])


def _heads(bundle: Bundle, system: System, rankers: Rankers) -> Heads:
    """The heads as the bundle weighs them. Raises `BadBundle` where the system file asks for others: they would have to be learnt."""
    packed = from_settings(bundle.manifest["settings"]["objectives"])
    have, want = ({name: (one.label, one.loss) for name, one in told.items()} for told in (packed, system.objectives))
    if list(have.items()) != list(want.items()):
        raise BadBundle(f"bundle {bundle.digest} has the heads {have}, system {system.name} asks for {want}: train again")
    if rankers.heads != len(packed):
        raise BadBundle(f"bundle {bundle.digest}: its rankers have {rankers.heads} heads, {len(packed)} are named: pack again")
    return Heads.of(packed)


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
