"""Put a server's parts together from its options: bundle, recommender, ladder, states, event log, door; then warm it."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from serving.bundle.bundle import BadBundle, Bundle
from serving.bundle.signature import load_signed
from serving.deleted_users import DeletedUsers
from serving.events.inbox import Inbox, log_name, open_log
from serving.exposures.log import ExposureLog
from serving.exposures.topic import ExposureTopic
from serving.http.admission import EngineLanes, EngineQueue
from serving.http.app import App
from serving.http.auth import Guard, load_keys
from serving.http.counters import Counters
from serving.http.routes import Api, Side
from serving.new_items.extend import NewItems
from serving.new_items.safety import Safety
from serving.new_items.store import open_items
from serving.query import Request
from serving.ranking.rankers import BadModels
from serving.recommender import Recommender
from serving.resilience.cache import Caches
from serving.resilience.ladder import Ladder
from serving.resilience.plain import Plain
from serving.service import Clock, Service
from serving.split.client import Peer, RemoteRanking, RemoteRetrieval
from serving.split.frames import Shape
from serving.split.servers import RankingServer, RetrievalServer
from serving.state.feast_row import HashRows, Layout, SqliteRows
from serving.state.states import Online, States, open_store
from serving.state.store import StoreUnavailable
from serving.state.user_state import StateTable, UserState, schema_key
from serving.system import System, load_system
from serving.telemetry.metrics import Metrics
from serving.telemetry.traces import Traces
from serving.two_bundles import Split
from serving.worker.options import Options
from serving.worker.release import BesideRelease

_WARM_REQUESTS = 10
_BETWEEN_PLACES_SECONDS = 0.02
_STEP_DAYS = 1.0  # with --clock auto, the most that one event moves the time of all users
_SETTLE_SECONDS = 10.0  # a start waits no longer for states that are made from the log: lists say so meanwhile
_STALE_DAYS = 60.0  # with --clock auto, a bundle cut longer ago than this is served at its own time


Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Parts:
    """What a worker is made of."""

    app: App
    digest: str
    background: list[Work] = field(default_factory=list)  # run beside the server until it stops
    closers: list[Callable[[], None]] = field(default_factory=list)  # in the order they are to be called


def assemble(options: Options, log: Any) -> Parts:
    """A worker, warm and able to answer. Raises `serving.bundle.bundle.BadBundle` when the bundle cannot be served."""
    if options.bundle is None:
        raise ValueError("there is no bundle to serve: give --bundle DIR")
    system = load_system(options.system)
    bundle = load_signed(options.bundle, options.verify, options.signed_by)
    if options.digest not in ("", bundle.digest):
        raise BadBundle(f"{options.bundle} holds bundle {bundle.digest}, asked for was {options.digest}: fetch the right one")
    metrics, recommender = Metrics(bundle.digest), Recommender(bundle, system)
    if options.role in ("retrieval", "ranking"):
        warm(recommender, [])
        inner = RetrievalServer if options.role == "retrieval" else RankingServer
        background: list[Work] = [lambda: warm_places(recommender), metrics.keep_flushing]
        return Parts(inner(recommender, metrics, Guard(), log), bundle.digest, background, [metrics.flush])
    return _front(options, log, system, recommender, metrics)


@dataclass(frozen=True)
class _AllSides:
    """What the sides of a worker have in common, whatever bundle they answer from."""

    log: Any
    system: System
    clock: Clock
    exposures: ExposureLog
    inbox: Inbox
    request_ids: Callable[[], str]
    deleted: DeletedUsers
    background: list[Work] = field(default_factory=list)  # what each side keeps doing,
    closers: list[Callable[[], None]] = field(default_factory=list)  # and what is to be closed


def _front(options: Options, log: Any, system: System, recommender: Recommender, metrics: Metrics) -> Parts:
    """A server that users ask: the whole recommender, or one whose halves are elsewhere."""
    topic = ExposureTopic(options.exposures_to) if options.exposures_to else None
    exposures = ExposureLog(options.exposures or options.home / "exposures", options.keeping, topic=topic)
    metrics.watch_exposures(exposures.counters)
    table = _table(options)
    deleted = DeletedUsers(Safety(options.home, _shared_at(options), "deleted"))
    try:
        deleted.share()
    except StoreUnavailable as error:  # `follow` reads them as soon as they can be had
        log.warning("deleted users cannot be read", reason=str(error))
    inbox = Inbox(lambda: open_log(options.events_url), lambda: _states(options, system, table, deleted))
    if not inbox.settle(_SETTLE_SECONDS):
        log.info("states are still being made from the event log", behind=inbox.behind)
    clock = clock_of(options, recommender.catalogue.cut_day)
    shared = _AllSides(log, system, clock, exposures, inbox, request_ids(), deleted)
    shared.background.append(lambda: deleted.follow(log))
    service = _side(options, shared, recommender, metrics, table)
    guard = Guard(load_keys(options.keys) if options.keys is not None else None, Counters(options.rates), metrics.counted_alone.inc)
    traces = Traces(options.traces or None, f"shortlist-{system.name}")
    turn = (EngineQueue if options.role == "fused" else EngineLanes)(system.budget.total_ms, metrics.shed.inc, metrics.waited.observe)
    door = Api(service, turn, metrics, guard, traces, log)
    if options.beside:
        _stand_beside(options, shared, door)
    closers = [inbox.close, *shared.closers, exposures.close, traces.close, metrics.flush]
    return Parts(door, door.digest, shared.background, closers)


def _stand_beside(options: Options, shared: _AllSides, door: Api) -> None:
    """The second bundle of a worker: another side of the same door, with states and caches of its own."""
    beside = msgspec.json.decode(options.beside, type=BesideRelease)
    users = Path(beside.users) if beside.users is not None else None
    own = replace(options, bundle=Path(beside.bundle), users=users, retrieval=beside.retrieval or options.retrieval,
                  ranking=beside.ranking or options.ranking)  # fmt: skip
    bundle = load_signed(Path(beside.bundle), options.verify, options.signed_by)
    metrics = Metrics(bundle.digest)
    service = _side(own, shared, Recommender(bundle, shared.system), metrics, _table(own))
    door.service.also.append(service)
    door.stand_beside(Side(service, metrics), msgspec.json.decode(options.split, type=Split) if options.split else Split(door.digest))
    shared.closers.append(metrics.flush)


def _side(options: Options, shared: _AllSides, recommender: Recommender, metrics: Metrics, table: StateTable | None) -> Service:
    """One bundle's way from a question to an answer, warm. What it keeps doing and what is to be closed goes into `shared`."""
    system, caches = shared.system, Caches(recommender.bundle.digest, time.monotonic)
    peers = [Peer(options.retrieval), Peer(options.ranking)] if options.role == "recommender" else []
    plain = Plain(metrics.plain, shared.log)
    ladder = Ladder(recommender, caches=caches, exposures=shared.exposures, plain=plain, **_elsewhere(recommender, *peers))
    reading = _states(options, system, table, shared.deleted, *_online(options, recommender.bundle, shared.clock, metrics))
    safety = Safety(options.home, _shared_at(options))
    day, grows = shared.clock.day, options.role == "fused"
    new_items = NewItems(recommender, open_items(options.state_url), _into(ladder, caches), day, safety, grows)
    try:
        new_items.refresh()
    except StoreUnavailable as error:  # `follow` takes them up as soon as they can be had
        shared.log.warning("posted items or safety messages cannot be read", reason=str(error))
    service = Service(
        ladder, reading, shared.clock, shared.request_ids, shared.inbox, new_items,
        near=options.state_url.startswith("sqlite:"), deleted=shared.deleted,
    )  # fmt: skip
    warm(recommender, reading.some(_WARM_REQUESTS))
    metrics.watch(
        caches.counters, lambda: {name: breaker.state for name, breaker in {**ladder.stages.breakers, "state": service.breaker}.items()}
    )
    shared.background.extend((lambda: warm_places(recommender, day()), metrics.keep_flushing, lambda: new_items.follow(shared.log)))
    shared.closers.extend((reading.close, *(peer.close for peer in peers)))
    return service


def _shared_at(options: Options) -> str:
    """The Redis where machines tell each other of safety and of deleted users; none where states are in a file."""
    return "" if options.state_url.startswith("sqlite:") else options.state_url


def _table(options: Options) -> StateTable | None:
    return StateTable.load(options.users) if options.users is not None else None


def _states(
    options: Options, system: System, table: StateTable | None, deleted: DeletedUsers, rows: HashRows | None = None,
    online: Online | None = None,
) -> States:  # fmt: skip
    store = open_store(options.state_url, system.budget.features_ms, log_name(options.events_url), rows)
    return States(store, table, system.learning, online, deleted.day, deleted.add)


def _online(options: Options, bundle: Bundle, clock: Clock, metrics: Metrics) -> tuple[HashRows | None, Online | None]:
    """Feast's online store as `--features` names it, of a bundle that says how it is read. Raises `ValueError` for another address."""
    told, url = bundle.manifest.get("online"), options.features
    if not told or not url:
        return None, None
    layout, key = Layout.of(told), schema_key(bundle.user_features)

    def age(day: float) -> None:
        metrics.feature_age.observe(max(clock.day() - day, 0.0))

    if url.startswith("sqlite:"):
        return None, Online(key, SqliteRows(Path(url.removeprefix("sqlite:")), layout), age, metrics.features_missing.inc)
    if url != options.state_url:
        raise ValueError(f"--features {url!r}: give sqlite:PATH, or the Redis of --state, where one round trip reads both")
    return HashRows(layout), Online(key, None, age, metrics.features_missing.inc)


def _into(ladder: Ladder, caches: Caches) -> Callable[[Recommender], None]:
    """Puts another recommender of the same bundle into the ladder; pools made without its items are forgotten."""

    def use(recommender: Recommender) -> None:
        ladder.recommender = recommender
        caches.pools.clear()

    return use


def _elsewhere(recommender: Recommender, *peers: Peer) -> dict[str, Any]:
    """The halves of a split recommender; nothing for a fused one."""
    if not peers:
        return {}
    digest, shape = recommender.bundle.digest, Shape.of(recommender)
    return {"retriever": RemoteRetrieval(peers[0], digest, shape), "ranker": RemoteRanking(peers[1], digest)}


def clock_of(options: Options, cut_day: float) -> Clock:
    """The server's clock. `auto`: now, or the bundle's cut when that is long ago, as it is with a data set of the past."""
    if options.clock == "auto":
        return Clock(cut_day, _STEP_DAYS) if time.time() / 86_400 - cut_day > _STALE_DAYS else Clock()
    return Clock(options.start_day)


def request_ids() -> Callable[[], str]:
    """Ids no other worker gives: this process's random prefix and a counter."""
    prefix, numbers = os.urandom(6).hex(), count()
    return lambda: f"{prefix}{next(numbers):08x}"


def warm(recommender: Recommender, states: Sequence[UserState]) -> None:
    """Answer for known and unknown users on every rung before anybody asks, so that the first answer is as fast as the hundredth.

    Nothing of it is logged, cached or counted. Raises `BadModels` where somebody cannot be answered in full: then nobody is.
    """
    ladder, day = Ladder(recommender), recommender.catalogue.cut_day
    for state in (*states, UserState(""), UserState("")):
        request = Request(state.user_id, recommender.system.answer_size, day)
        try:
            recommender.recommend(request, state)
        except Exception as problem:  # whatever a graph, a source or a rule of one's own raises
            whom = f"user {state.user_id}" if state.user_id else "a newcomer"
            raise BadModels(f"the bundle cannot answer {whom} ({problem}): serve the one before it, and pack this one again") from problem
        ladder.answer(request, state, None, 0.0)


async def warm_places(recommender: Recommender, day: float | None = None) -> None:
    """What sources keep for each place, made beside the first requests and not within them: tens of milliseconds a place."""
    when = recommender.catalogue.cut_day if day is None else day
    for place in recommender.catalogue.places:
        query = recommender.query(Request("", recommender.system.answer_size, when, place=place), UserState(""))
        await asyncio.to_thread(recommender.retrieve, query)
        await asyncio.sleep(_BETWEEN_PLACES_SECONDS)
