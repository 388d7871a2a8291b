"""An answer, always: the same stages under a time budget, and a next rung for whatever fails or comes too late.

    full -> light only -> the user's cached list -> linear from the history -> popular in the region -> static

A stage begins only while the time left covers what it (and the rules after it) lately took; a dependency that failed is asked again
through its breaker. Whatever the rung, the rules arrange its list and fill it up to k. What stands around the rungs (arranging, sentences,
caches, the exposure record) has a plain form where it fails (`plain`): a list without a sentence is a list, and the bars hold in any case.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from serving.bundle.arrays import Rows
from serving.bundle.catalogue import item_key
from serving.exposures.explain import explain
from serving.exposures.log import ExposureLog
from serving.exposures.shown import story
from serving.other_lists import OtherList, anchor, answered, enough, steps
from serving.query import Answer, Candidates, Query, Request
from serving.ranking.rankers import UserSide
from serving.ranking.scoring import Scores
from serving.recommender import Recommender, Trace, listed
from serving.resilience.breaker import Unavailable
from serving.resilience.budget import Countdown, Stages, timeout_seconds
from serving.resilience.cache import Caches
from serving.resilience.plain import Plain
from serving.restriction import check
from serving.rules.slate import Arranged, Ranked
from serving.state.user_state import UserState

COSTS = {
    "full": "what the user did since the last training is not counted",
    "light": "ordered by the light ranker alone",
    "cached": "an earlier list of this user, without what happened since",
    "linear": "from the history by item-item votes, not ranked",
    "popular": "popular in the region, not personal",
    "static": "the same list for everybody",
}
UNARRANGED, BARS_ONLY = "the list could not be arranged", "nothing that is barred, but no cap, floor or order rule holds"
T = TypeVar("T")
_LIST_LENGTH = 200  # rows kept of a good answer for the cached rung


class RemoteRetriever(Protocol):
    """Retrieval elsewhere. Raises when it fails or `timeout_seconds` are over."""

    def __call__(self, query: Query, side: UserSide, timeout_seconds: float) -> Candidates | Awaitable[Candidates]: ...


class RemoteRanker(Protocol):
    """Ranking elsewhere."""

    def __call__(self, query: Query, side: UserSide, pool: Candidates, timeout_seconds: float) -> Scores | Awaitable[Scores]: ...


class _Run:
    """One request on its way down."""

    __slots__ = ("base", "pool", "pool_day", "query", "reasons", "recommender", "scores", "side", "side_day", "time")

    def __init__(self, recommender: Recommender, query: Query, time: Countdown) -> None:
        self.recommender, self.query, self.time = recommender, query, time
        self.reasons: list[str] = []
        self.pool: Candidates | None = None
        self.scores: Scores | None = None
        self.base: Rows | None = None
        self.side: UserSide | None = None
        self.pool_day = self.side_day = query.request.at_day

    def unarranged(self, ranked: Ranked) -> Arranged:
        """The list under the bars alone, since arranging it failed."""
        self.reasons.append(UNARRANGED)
        return self.recommender.barred_only(self.query, ranked)


class Ladder:
    """The recommender that always answers. `retriever`, `ranker`: those stages elsewhere (split mode)."""

    def __init__(
        self, recommender: Recommender, *, caches: Caches | None = None, exposures: ExposureLog | None = None,
        retriever: RemoteRetriever | None = None, ranker: RemoteRanker | None = None, clock: Callable[[], float] = time.monotonic,
        plain: Plain | None = None,
    ) -> None:  # fmt: skip
        self.plain = plain or Plain()
        self.recommender, self.caches, self.exposures = recommender, caches, exposures
        self.system, self.digest, self.clock = recommender.system, recommender.bundle.digest, clock
        self._retriever, self._ranker = retriever, ranker
        elsewhere = {"retrieval": retriever, "ranking": ranker}
        self.stages = Stages(tuple(name for name, given in elsewhere.items() if given is not None), clock)

    def answer(self, request: Request, state: UserState, reason: str | None = None, budget_ms: float | None = None) -> Answer:
        """`answered`, for a ladder whose stages are all in this process."""
        return at_once(self.answered(request, state, reason, budget_ms))

    async def answered(self, request: Request, state: UserState, reason: str | None = None, budget_ms: float | None = None) -> Answer:
        """A full, rule-abiding list. `reason`: why the online read failed, when it did; `budget_ms`: what is left of the request's time."""
        began = self.clock()
        left_ms = self.system.budget.total_ms if budget_ms is None else min(budget_ms, self.system.budget.total_ms)
        recommender = self.recommender  # one for the whole request: posted items may put another in its place meanwhile
        query = recommender.query(request, state)
        run = _Run(recommender, self._readable(query), Countdown(began, left_ms / 1e3))
        query = run.query
        if not request.personal:
            return self._other(run, began, reason)
        rung, ranked = "full", await self._ranked(run)
        if ranked is None:
            rung, ranked = next((name, found) for name, step in self._lower() if (found := self._stepped(step, run)) is not None)
        elif run.scores is not None and run.scores.heavy is None:
            rung = "light"
        arranging = self.clock()
        arranged = self.plain.run("arrange", recommender.arrange, query, ranked, otherwise=lambda: run.unarranged(ranked))
        degraded = self._degraded(rung, run.reasons, reason)
        trace = Trace(query, run.pool, run.scores, arranged.moves, rung, run.pool_day, run.side_day, run.base, run.side)
        answer = self.plain.run(
            "reasons", recommender.answer, trace, arranged, degraded, otherwise=lambda: recommender.wordless(trace, arranged, degraded)
        )
        self.stages.measured(run.time, "arrange", arranging)
        answer.took_ms, answer.stage_ms = (run.time.now - began) * 1e3, run.time.stage_ms
        if self.caches is not None and rung in ("full", "light") and not request.restricted and not request.erased:
            self.plain.run("cache", self.caches.lists.put, request.user_id, ranked.rows[:_LIST_LENGTH].copy(), otherwise=lambda: None)
        return self._logged(answer)

    def _logged(self, answer: Answer) -> Answer:
        if self.exposures is not None:
            self.plain.run("exposure", self.exposures.keep, answer, self.system, otherwise=lambda: None)
        return answer

    def _other(self, run: _Run, began: float, reason: str | None) -> Answer:
        """A list that is not the user's own: the first step within its time, the others whatever it takes."""
        recommender, query, found = run.recommender, run.query, OtherList()
        (_, first), *lower = steps(query)
        try:
            self.stages.run(run.time, "similar" if query.request.similar_to else "popular", first, recommender, query, found)
            if not found.rows:
                run.reasons.append("no source knows what is like it" if query.request.similar_to else "no source has counted such items")
        except Unavailable as error:
            run.reasons.append(str(error))
        for _, step in lower:
            if enough(recommender, query, found):
                break
            self.plain.run("rung", step, recommender, query, found, otherwise=lambda: None)
        degraded = self._degraded(found.rung or "static", run.reasons, reason)
        answer = answered(recommender, query, found, degraded)
        run.time.now = self.clock()
        answer.took_ms, answer.stage_ms = (run.time.now - began) * 1e3, run.time.stage_ms
        return self._logged(answer)

    def some_item(self) -> str:
        """The id of the catalogue's first item."""
        return self.recommender.catalogue.item_id(0)

    def check(self, request: Request) -> None:
        """Raises `serving.restriction.NotInCatalogue` for a question about what this bundle does not hold."""
        check(request.only, self.recommender.catalogue)
        if request.similar_to:
            anchor(self.recommender, request.similar_to)

    def why(self, request_id: str) -> dict[str, Any] | None:
        """How an answer came about; None when the exposure log does not hold it."""
        if self.exposures is None:
            return None
        record = self.exposures.find(request_id)
        if record is not None:
            return explain(self.recommender, record)
        shown = self.exposures.shown(request_id)
        return story(shown) if shown is not None else None

    def unknown(self, item_ids: Sequence[str]) -> int:
        """How many of the items the catalogue does not hold."""
        if not item_ids:
            return 0
        keys = np.array([item_key(item_id) for item_id in item_ids], np.uint64)
        return int(np.count_nonzero(self.recommender.catalogue.rows_of_keys(keys) < 0))

    def user_changed(self, user_id: str) -> None:
        """An event of the user was taken: nothing made from the old state is used again."""
        if self.caches is not None:
            self.caches.user_changed(user_id)

    def user_deleted(self, user_id: str) -> None:
        """Nothing made of the user is kept."""
        self.user_changed(user_id)
        if self.caches is not None:
            self.caches.lists.drop(user_id)

    def _readable(self, query: Query) -> Query:
        """The question, of a user nothing is known of where the state cannot be read as a history."""

        def stranger() -> Query:
            return replace(query, state=UserState(query.request.user_id))

        return self.plain.run("history", lambda: (query.history, query.session, query)[2], otherwise=stranger)

    def _stepped(self, step: Callable[[_Run], Ranked | None], run: _Run) -> Ranked | None:
        """A lower rung's list; none where it fails, of the last an empty one: the catalogue fills it up."""
        last = step == self._static
        return self.plain.run("rung", step, run, otherwise=lambda: listed(np.empty(0, np.int32), run.query) if last else None)

    def _lower(self) -> tuple[tuple[str, Callable[[_Run], Ranked | None]], ...]:
        return ("cached", self._cached), ("linear", self._linear), ("popular", self._popular), ("static", self._static)

    async def _ranked(self, run: _Run) -> Ranked | None:
        """The models' order: heavy where time allows, else light; None when not even light could be had."""
        try:
            side = run.side = await self._retrieved(run)
            pool = run.pool
            assert pool is not None
            if self._ranker is not None:
                timeout = timeout_seconds(run.time, self.system.budget.models_ms, self.system.budget.rules_ms)
                run.scores = await self.stages.ask(run.time, "ranking", self._ranker, run.query, side, pool, timeout)
                if run.scores.heavy is None:
                    run.reasons.append("ranking answered with the light ranker alone")
                return self._ordered(run, pool)
            run.scores = self.stages.run(run.time, "light", run.recommender.scoring.light, run.query, side, pool)
        except Unavailable as error:
            run.reasons.append(str(error))
            return None
        if run.scores.heavy is None:
            try:
                run.scores = self.stages.run(run.time, "heavy", run.recommender.scoring.heavy, side, pool, run.scores)
            except Unavailable as error:
                run.reasons.append(str(error))
        return self._ordered(run, pool)

    def _ordered(self, run: _Run, pool: Candidates) -> Ranked | None:
        """The pool in the order of its scores."""
        ranked = self.plain.run("order", run.recommender.scoring.order, pool, run.scores, otherwise=lambda: None)
        if ranked is None:
            run.reasons.append("the scores could not be put in order")
        return ranked

    async def _retrieved(self, run: _Run) -> UserSide:
        """Put the pool into `run`; the user's side it was found with."""
        caches = None if run.query.request.restricted else self.caches
        kept = self.plain.run("cache", caches.pool, run.query, otherwise=lambda: None) if caches is not None else None
        if kept is not None:
            run.pool, run.pool_day, run.side_day = kept.pool, kept.day, kept.day
            return kept.side
        side = self.stages.run(run.time, "user_side", run.recommender.user_side, run.query)
        if self._retriever is not None:
            timeout = timeout_seconds(run.time, self.system.budget.retrieval_ms, self.system.budget.rules_ms)
            run.pool = await self.stages.ask(run.time, "retrieval", self._retriever, run.query, side, timeout)
        else:
            run.pool = self.stages.run(run.time, "retrieve", run.recommender.retrieve, run.query, side)
        if caches is not None:
            self.plain.run("cache", caches.keep_pool, run.query, run.pool, side, otherwise=lambda: None)
            if self.system.hybrid:
                caches.batch_asked(run.recommender.batch_list(run.query) is not None)
        return side

    def _cached(self, run: _Run) -> Ranked | None:
        if run.query.request.erased:
            return None
        user_id = run.query.request.user_id
        rows = self.caches.lists.get(user_id) if self.caches is not None else None
        if rows is None:
            rows = run.recommender.bundle.fallback.user(user_id)
        fault = _fault(rows, len(run.recommender.catalogue))
        if fault:
            run.reasons.append(f"cached list: {fault}")
            return None
        run.base = rows
        return listed(rows, run.query) if len(rows) else None

    def _linear(self, run: _Run) -> Ranked | None:
        source = next(iter(run.recommender.explained), None)
        if source is None or run.query.state.is_unknown:
            return None
        try:
            hits = self.stages.run(run.time, "linear", source.retrieve, run.query, run.recommender.system.light_size)
        except Unavailable as error:
            run.reasons.append(str(error))
            return None
        run.base = hits.rows
        return listed(hits.rows, run.query) if len(hits.rows) else None

    def _popular(self, run: _Run) -> Ranked | None:
        rows = run.recommender.bundle.fallback.popular(run.query.request.region or run.query.state.region)
        run.base = rows
        return listed(rows, run.query) if len(rows) else None

    def _static(self, run: _Run) -> Ranked:
        run.base = run.recommender.bundle.fallback.static()
        return listed(run.base, run.query)

    def _degraded(self, rung: str, reasons: list[str], reason: str | None) -> dict[str, str] | None:
        told = [reason, *reasons] if reason else reasons
        if rung == "full" and not told:
            return None
        cost = BARS_ONLY if UNARRANGED in told else COSTS[rung]
        return {"rung": rung, "reason": "; ".join(told) or "nothing better is known of this user", "cost": cost}


def _fault(rows: Rows, items: int) -> str:
    """What is wrong with a stored list of rows; empty when nothing is."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype != np.int32:
        return "not a list of rows"
    if len(rows) and (rows.min() < 0 or rows.max() >= items):
        return "names items the bundle lacks"
    return "" if len(np.unique(rows)) == len(rows) else "names an item twice"


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nobody elsewhere. Raises `RuntimeError` for one that waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    coroutine.close()
    raise RuntimeError("a stage of this ladder is elsewhere: await `answered`")
