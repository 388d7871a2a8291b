"""One request's way through the server: who asks, what is known of them, the ladder, the answer; and events' way in."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from feature_repo.schema import SECONDS_A_DAY
from serving.deleted_users import DeletedUsers
from serving.events.inbox import Inbox
from serving.events.log import LogUnavailable, event_day, state_event
from serving.messages import (
    ERASE,
    SESSION,
    Asking,
    Deleted,
    Event,
    EventsResponse,
    ItemPatch,
    ItemsResponse,
    PopularRequest,
    Refusal,
    SafetyMessage,
    SafetyResponse,
    SimilarRequest,
    WireProblem,
)
from serving.new_items.extend import NewItems
from serving.new_items.safety import Said
from serving.query import Answer, Request
from serving.resilience.breaker import Breaker, Unavailable
from serving.restriction import NotInCatalogue
from serving.state.lately import Lately
from serving.state.states import States
from serving.state.store import StoreUnavailable
from serving.state.user_state import UserState
from serving.system import System

_READERS, _HEARERS, _SENDERS = 4, 4, 2  # threads that read states where reading may wait; that keep and hear safety messages; of `senders`
_SLOW_SECONDS = 30.0  # reads of a file that was slow go to a thread this long
_LOOK_SECONDS, _HALVED_SECONDS = 1.0, 3600.0  # how often the wall clock is looked at; what a difference to it takes to halve
AHEAD_DAYS = 1 / 24  # an event may be this far ahead of the server's clock
REPLAY_AHEAD_DAYS = 366.0  # the same of a clock that moves on with the events it is sent


class Engine(Protocol):
    """What answers: `serving.resilience.ladder.Ladder` in a fused server, the split recommender in a split one."""

    digest: str
    system: System

    async def answered(self, request: Request, state: UserState, reason: str | None = None, budget_ms: float | None = None) -> Answer:
        """A full, rule-abiding list. `reason`: the online read failed; `budget_ms`: what is left of the request's time."""

    def why(self, request_id: str) -> dict[str, Any] | None:
        """How an answer came about, from the exposure log; None when it is not there."""

    def unknown(self, item_ids: Sequence[str]) -> int:
        """How many of the items the catalogue does not hold."""

    def some_item(self) -> str:
        """The id of an item of the catalogue."""

    def check(self, request: Request) -> None:
        """Raises `serving.restriction.NotInCatalogue` for a question about what the bundle does not hold."""

    def user_deleted(self, user_id: str) -> None:
        """Nothing made of the user is kept."""

    def user_changed(self, user_id: str) -> None:
        """An event of the user was taken: nothing made from the old state is used again."""


class Clock:
    """Days since 1970: the wall clock as read at start, moved on by the monotonic one, so that a jump of the wall clock changes no answer.

    What it differs from the wall clock is made good by half every hour: a machine that starts with the wrong time gets to the right one.
    `start_day`: begin there instead, for a replay of past events; the clock then moves on to the newest event it has seen, by at most
    `step_days` an event, and knows nothing of the wall clock.
    """

    def __init__(
        self,
        start_day: float | None = None,
        step_days: float = float("inf"),
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replaying = start_day is not None
        self._step, self._wall, self._steady = step_days, wall, steady
        self._start = start_day if start_day is not None else wall() / SECONDS_A_DAY
        self._anchor = self._looked = steady()

    def day(self) -> float:
        now = self._steady()
        if not self.replaying and now - self._looked >= _LOOK_SECONDS:
            self._slew(now)
        return self._start + (now - self._anchor) / SECONDS_A_DAY

    def saw(self, day: float) -> None:
        """An event of that day was taken."""
        if self.replaying:
            self._start += min(max(day - self.day(), 0.0), self._step)

    def _slew(self, now: float) -> None:
        since, self._looked = now - self._looked, now
        ahead = self._start + (now - self._anchor) / SECONDS_A_DAY - self._wall() / SECONDS_A_DAY
        self._start -= ahead * (1.0 - 0.5 ** (since / _HALVED_SECONDS))


@dataclass
class Service:
    """Everything one worker needs to answer. `inbox` None: this role takes no events."""

    engine: Engine
    states: States
    clock: Clock
    request_ids: Callable[[], str]
    inbox: Inbox | None = None
    new_items: NewItems | None = None
    breaker: Breaker = field(default_factory=lambda: Breaker("user state", time.monotonic))
    # What may wait, waits in a thread of its own kind: a store that hangs keeps its own, and a recall needs this machine's disk alone.
    readers: Executor = field(default_factory=lambda: ThreadPoolExecutor(_READERS, "state reader"))
    hearers: Executor = field(default_factory=lambda: ThreadPoolExecutor(_HEARERS, "safety messages"))
    senders: Executor = field(default_factory=lambda: ThreadPoolExecutor(_SENDERS, "to all machines"))  # of posts and safety messages
    near: bool = True  # the store is a file of this machine: a read that waits for nothing is cheaper than a thread
    lately: Lately = field(default_factory=Lately)
    deleted: DeletedUsers | None = None  # None: nobody can be (a measurement)
    also: list["Service"] = field(default_factory=list)  # of other bundles in this worker: they hear of events, posts and safety messages
    _slow_until: float = field(default=float("-inf"), init=False)  # monotonic seconds: the file kept a read waiting

    async def recommend(self, asked: Asking, waited_ms: float = 0.0) -> Answer:
        """Answer one request. `waited_ms` is what its time budget has lost in the queue; the online read takes from it too."""
        began, system = time.perf_counter(), self.engine.system
        await self._hear()
        request = Request(
            user_id=asked.who,
            k=asked.k or system.answer_size,
            at_day=self.clock.day(),
            request_id=self.request_ids(),
            place=asked.context.place,
            region=asked.context.region,
            device_type=asked.context.device_type,
            page=asked.context.page,
            discover=asked.discover,
            only=asked.only or None,
            leave_out=asked.leave_out,
            similar_to=asked.item_id if isinstance(asked, SimilarRequest) else "",
            popular=isinstance(asked, PopularRequest),
            erased=self.deleted is not None and self.deleted.day(asked.who) is not None,
        )
        try:
            self.engine.check(request)
        except NotInCatalogue as error:
            raise WireProblem(404 if error.field == "item_id" else 422, error.code, str(error), error.field) from None
        state, reason = await self._state(asked.who) if asked.who else (UserState(""), None)
        lost_ms = waited_ms + (time.perf_counter() - began) * 1e3
        return await self.engine.answered(request, state, reason, system.budget.total_ms - lost_ms)

    async def _state(self, user_id: str) -> tuple[UserState, str | None]:
        """What is known of the user, and why that may be less than it should be."""
        states, lately = self.states, self.lately
        try:
            state, whole = await self.breaker.awaited(self._read, user_id)
        except Unavailable as error:
            return states.with_events(states.known(user_id), lately.of(user_id)), str(error)
        if not whole and self.inbox is not None and self.inbox.reads:
            return states.with_events(state, lately.of(user_id)), "user state: the store is being made again from the event log"
        waiting = self.inbox.waiting if self.inbox is not None else 0
        if waiting and states.deleted(user_id) is not None:  # perhaps that is what waits
            return states.with_events(
                states.known(user_id), lately.of(user_id)
            ), f"user state: {waiting} acknowledged events wait for the store"
        if waiting:
            return states.with_events(state, lately.waiting(user_id)), f"user state: {waiting} acknowledged events wait for the store"
        return state, None

    def _read(self, user_id: str) -> tuple[UserState, bool] | Awaitable[tuple[UserState, bool]]:
        """At once from a file that answers at once; else in a thread: a store elsewhere, a slow disk, a state that is folded anew."""
        began = time.monotonic()
        if not self.near or began < self._slow_until:
            return self._elsewhere(user_id)
        try:
            found = self.states.peek(user_id)
        finally:
            if time.monotonic() - began > self._patience():
                self._slow_until = time.monotonic() + _SLOW_SECONDS
        return self._elsewhere(user_id) if found is None else found

    async def _elsewhere(self, user_id: str) -> tuple[UserState, bool]:
        async with asyncio.timeout(self._patience()):
            return await asyncio.get_running_loop().run_in_executor(self.readers, self.states.look, user_id)

    def _patience(self) -> float:
        """Seconds that a read may take. A file is slow only far beyond what a busy machine does to a read that waits for nothing."""
        budget = self.engine.system.budget
        return (budget.total_ms / 2 if self.near else 2 * budget.features_ms) / 1e3

    async def accept(self, events: dict[int, Event], refused: list[Refusal]) -> EventsResponse:
        """Acknowledge events: when this returns they are in the log, and the next answer knows them."""
        if self.inbox is None:
            raise WireProblem(404, "no_events_here", "this role takes no events: send them to the recommender")
        limit = self.clock.day() + (REPLAY_AHEAD_DAYS if self.clock.replaying else AHEAD_DAYS)
        taken: dict[int, Event] = {}
        for index, event in events.items():
            if event_day(event) > limit:
                message = f"timestamp {event.timestamp.isoformat()} is ahead of the server's clock: check the sender's clock"
                refused.append(Refusal(index, "bad_value", message, "timestamp"))
            else:
                taken[index] = event
        kept = {index: event for index, event in taken.items() if self.states.consent(event.who) != "minimal"}
        taken, not_kept = kept, len(taken) - len(kept)
        try:
            outcomes = await self.inbox.take(list(taken.values())) if taken else []
        except LogUnavailable as error:
            raise WireProblem(503, "log_unavailable", str(error), retry_after=1) from None
        told = dict(zip(taken, outcomes, strict=True))
        conflicts = [_conflict(index, taken[index]) for index, outcome in told.items() if outcome == "conflict"]
        if conflicts and len(conflicts) == len(events):
            raise WireProblem(409, conflicts[0].code, conflicts[0].message, conflicts[0].field)
        refused += conflicts
        new = [taken[index] for index, outcome in told.items() if outcome == "new"]
        self._took(new, self.inbox)
        early = sum(event_day(event) < self.states.cut_day for event in new)
        unknown, unused = self.engine.unknown([one.item_id for one in new]), self.states.unused(one.event_type for one in new)
        return EventsResponse(len(new) + not_kept, outcomes.count("duplicate"), refused, early, unknown, unused, not_kept)

    def _took(self, events: list[Event], inbox: Inbox) -> None:
        """Events are in the log: what was made without them is forgotten."""
        for other in self.also:
            other._took(events, inbox)
        if not inbox.waiting:
            self.lately.caught_up()
        self.lately.add(map(state_event, events), folded=not inbox.waiting)
        for event in events:
            self.engine.user_changed(event.who)
            self.clock.saw(event_day(event))

    async def say(self, messages: list[SafetyMessage]) -> SafetyResponse:
        """Let safety messages hold: here when this returns, and in the next answer of every worker of this machine."""
        if self.new_items is None:
            raise WireProblem(404, "no_safety_here", "this role takes no safety messages: send them to the recommender")
        day = self.clock.day()
        said = [Said(one.item_id, one.action, not one.lift, day) for one in messages]
        try:
            await asyncio.get_running_loop().run_in_executor(self.hearers, self.new_items.say, said)
        except StoreUnavailable as error:
            raise WireProblem(503, "safety_unavailable", str(error), retry_after=1) from None
        self.senders.submit(self.new_items.share)  # to other machines at once; the poll does it again in a second
        return SafetyResponse(len(said), self.engine.unknown([one.item_id for one in messages]))

    async def delete_user(self, who: str) -> Deleted:
        """Know nothing of a user, or a session, any more: in the log and the book when this returns, so in the next answer of every worker.

        Sent again after an error, it ends the same.
        """
        if self.inbox is None or self.deleted is None:
            raise WireProblem(404, "no_deletions_here", "this role deletes nobody: ask the recommender")
        day = self.clock.day()
        when = datetime.fromtimestamp(day * SECONDS_A_DAY, UTC)
        user, session = ("", who.removeprefix(SESSION)) if who.startswith(SESSION) else (who, "")
        entry = Event(f"{ERASE}:{self.request_ids()}", ERASE, user, ERASE, when, session)
        try:
            await self.inbox.take([entry])
            await asyncio.get_running_loop().run_in_executor(self.hearers, self.deleted.add, who, day)
        except LogUnavailable as error:
            raise WireProblem(503, "log_unavailable", str(error), retry_after=1) from None
        except StoreUnavailable as error:
            raise WireProblem(503, "deletion_unavailable", str(error), retry_after=1) from None
        self.senders.submit(self.deleted.share)
        for service in (self, *self.also):
            service.lately.forget(who)
            service.engine.user_deleted(who)
        return Deleted(user or session)

    async def delete_item(self, item_id: str) -> Deleted:
        """Let an item be in no list any more, as a safety message does, until it is lifted by name."""
        told = await self.say([SafetyMessage(item_id, "delete")])
        return Deleted(item_id, not told.unknown_items)

    async def _hear(self) -> None:
        """What another worker was told of an item's safety, or of a user who was deleted, holds in this answer already."""
        for told in (self.new_items, self.deleted):
            if told is not None and told.is_news():
                with suppress(StoreUnavailable, TimeoutError):  # it is asked for again by every request, and told by the poll
                    async with asyncio.timeout(self.engine.system.budget.total_ms / 2e3):  # an item recalled costs more than a lower rung
                        await asyncio.get_running_loop().run_in_executor(self.hearers, told.hear)

    async def post_items(self, items: list[ItemPatch]) -> ItemsResponse:
        """Make items retrievable: here when this returns, in the other workers within `serving.new_items.extend.POLL_SECONDS`."""
        if self.new_items is None or not self.new_items.grows:
            raise WireProblem(404, "no_items_here", "a split recommender takes no items: release a bundle that has them")
        distinct = list({item.item_id: item for item in items}.values())
        try:
            new, version = await asyncio.get_running_loop().run_in_executor(self.senders, self.new_items.post, distinct)
        except StoreUnavailable as error:
            raise WireProblem(503, "items_unavailable", str(error), retry_after=1) from None
        return ItemsResponse(new, len(items) - new, [], version)

    async def why(self, request_id: str) -> dict[str, Any]:
        """Raises `WireProblem` 404 when the request is not in the exposure log."""
        found = await asyncio.to_thread(self.engine.why, request_id)
        if found is None:
            raise WireProblem(
                404, "unknown_request", f"no answer {request_id[:64]!r} in the exposure log: check the id, or its age", "request_id"
            )
        return found


def _conflict(index: int, event: Event) -> Refusal:
    message = f"event_id {event.event_id!r} names another event already, which stays as it is: give every event an id of its own"
    return Refusal(index, "event_id_taken", message, "event_id")
