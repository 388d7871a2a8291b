"""Put a server's parts together from its options: bundle, recommender, ladder, states, event log, door; then warm it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from serving.app import Door
from serving.bundle import Bundle
from serving.eventlog import Inbox, open_log
from serving.ladder import Ladder
from serving.messages import RecommendationRequest, RequestContext
from serving.observe import Metrics, Traces
from serving.options import Options
from serving.queueing import Turn
from serving.security import Guard, load_keys
from serving.service import Clock, Service
from serving.state import StateTable
from serving.stores import States, open_store
from serving.system import System, load_system

_WARM_REQUESTS = 20


@dataclass
class Parts:
    """What a worker is made of."""

    door: Door
    digest: str
    closers: list[Callable[[], None]] = field(default_factory=list)  # in the order they are to be called


def assemble(options: Options, log: Any) -> Parts:
    """A worker, warm and able to answer. Raises `serving.bundle.BadBundle` when the bundle cannot be served."""
    system = load_system(options.system)
    bundle = Bundle.load(options.bundle, verify=options.verify)
    ladder, closers = engine(options, bundle, system)
    table = StateTable.load(options.users) if options.users is not None else None
    clock = Clock(options.start_day)

    def states() -> States:
        return States(open_store(options.state_url, system.budget.features_ms), table, system.learning)

    reading = states()
    inbox = Inbox(lambda: open_log(options.events_url), states)
    service = Service(ladder, reading, clock, request_ids(), inbox)
    metrics = Metrics(bundle.digest)
    guard = Guard(load_keys(options.keys) if options.keys is not None else None)
    traces = Traces(options.traces or None, f"shortlist-{system.name}")
    turn = Turn(system.budget.total_ms, metrics.shed.inc, metrics.waited.observe)
    door = Door(service, turn, metrics, guard, traces, log)
    warm(service, table)
    return Parts(door, bundle.digest, [inbox.close, reading.store.close, *closers, traces.close])


def engine(options: Options, bundle: Bundle, system: System) -> tuple[Ladder, list[Callable[[], None]]]:
    """The ladder over the whole recommender, and what to close after it."""
    from serving.recommender import Recommender

    recommender = Recommender(bundle, system)
    return Ladder(recommender), []


def request_ids() -> Callable[[], str]:
    """Ids no other worker gives: this process's random prefix and a counter."""
    prefix, numbers = os.urandom(6).hex(), count()
    return lambda: f"{prefix}{next(numbers):08x}"


def warm(service: Service, table: StateTable | None) -> None:
    """Answer some requests for known and unknown users before anybody asks, so that the first answer is as fast as the hundredth."""
    known = [table[index].user_id for index in range(0, len(table), max(len(table) // _WARM_REQUESTS, 1))] if table is not None else []
    for user_id in [*known[:_WARM_REQUESTS], "nobody", "nobody"]:
        service.recommend(RecommendationRequest(user_id, context=RequestContext()))
    time.sleep(0)
