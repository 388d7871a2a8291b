"""Fused and split give the same list, and the split one goes on when a half is gone, slow, wrong, or serves another bundle."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.bundle.bundle import Bundle
from serving.http.auth import Guard
from serving.http.server import Server, Stop, bind, run
from serving.messages import Only
from serving.query import Answer, Request
from serving.recommender import Recommender
from serving.resilience.ladder import Ladder
from serving.split import frames as wire
from serving.split.client import Peer, PeerError, RemoteRanking, RemoteRetrieval
from serving.split.frames import Frame
from serving.split.servers import RankingServer, RetrievalServer
from serving.state.user_state import UserState
from serving.system import Budget
from serving.telemetry.logs import configure_logs
from serving.telemetry.metrics import Metrics
from tests.serving import tiny_bundle
from tests.serving.servers import free_port, running, tiny_options
from tests.serving.tiny_bundle import DAY

TABLE = tiny_bundle.states()
STATES = [*(TABLE[index] for index in range(len(TABLE))), UserState("stranger"), TABLE[3].with_session_event(7, "click", DAY)]


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    patient = Budget(60_000, 10_000, 10_000, 10_000, 10_000)  # lists are compared here, not speed
    bundle = Bundle.load(tiny_bundle.write_tiny(tmp_path_factory.mktemp("split")))
    return Recommender(bundle, replace(tiny_bundle.system(), budget=patient))


@contextmanager
def on_loopback(app: Any) -> Iterator[str]:
    """The application on the real HTTP server, in a thread; its address."""
    listener, loop = bind("127.0.0.1", 0), asyncio.new_event_loop()
    stop = Stop()

    async def serve() -> None:
        await run(Server(app, 100), listener, stop, lambda: None, 0.0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(stop.now)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def halves(recommender: Recommender) -> Iterator[tuple[str, str]]:
    metrics, log = Metrics(recommender.bundle.digest), configure_logs("error")
    with (
        on_loopback(RetrievalServer(recommender, metrics, Guard(), log)) as retrieval,
        on_loopback(RankingServer(recommender, metrics, Guard(), log)) as ranking,
    ):
        yield retrieval, ranking


@contextmanager
def split(recommender: Recommender, retrieval: str, ranking: str, digest: str | None = None) -> Iterator[Ladder]:
    digest = digest or recommender.bundle.digest
    with closing(Peer(retrieval)) as first, closing(Peer(ranking)) as second:
        retriever = RemoteRetrieval(first, digest, wire.Shape.of(recommender))
        yield Ladder(recommender, retriever=retriever, ranker=RemoteRanking(second, digest))


def request(state: UserState, **more: Any) -> Request:
    return Request(state.user_id, 10, DAY + 0.5, **more)


def shown(answer: Answer) -> list[tuple[str, float, tuple[str, ...], str]]:
    return [(item.item_id, round(item.score, 5), item.sources, item.reason) for item in answer.items]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"place": "north", "region": "west"},
        {"discover": True},
        {"only": Only(category=("D > C3", "D2"))},
        {"only": Only(items=("i003", "i100", "i237")), "leave_out": ("i100",)},
        {"leave_out": ("i001", "i002", "i013")},
        {"similar_to": "i030"},
        {"popular": True, "only": Only(brand=("brand 2",)), "region": "west"},
    ],
)
async def test_fused_and_split_give_the_same_lists(recommender: Recommender, halves: tuple[str, str], more: dict[str, Any]) -> None:
    fused = Ladder(recommender)
    with split(recommender, *halves) as divided:
        for state in STATES:
            apart, whole = [await ladder.answered(request(state, **more), state) for ladder in (divided, fused)]
            assert apart.degraded == whole.degraded
            assert shown(apart) == shown(whole)


async def test_a_half_with_another_bundle_refuses_with_409_and_names_both(recommender: Recommender, halves: tuple[str, str]) -> None:
    other = "sha256:" + "cd" * 32
    query = recommender.query(request(STATES[0]), STATES[0])
    frame = wire.retrieve_frame(other, query, recommender.user_side(query))
    with closing(Peer(halves[0])) as peer, pytest.raises(PeerError, match="409") as refused:
        await peer.post("/v1/retrieve", frame, 5)
    assert other in str(refused.value)
    assert recommender.bundle.digest in str(refused.value)
    with split(recommender, *halves, digest=other) as ladder:
        answer = await ladder.answered(request(STATES[0]), STATES[0])
    assert len(answer.items) == 10
    assert answer.degraded is not None
    assert "409" in answer.degraded["reason"]


@pytest.mark.parametrize("gone", [0, 1])
async def test_with_a_half_gone_the_list_is_full_and_the_half_is_named(
    recommender: Recommender, halves: tuple[str, str], gone: int
) -> None:
    addresses = list(halves)
    addresses[gone] = f"127.0.0.1:{free_port()}"
    with split(recommender, *addresses) as ladder:
        answer = await ladder.answered(request(STATES[1]), STATES[1])
    assert len(answer.items) == 10
    assert answer.degraded is not None
    assert ("retrieval", "ranking")[gone] in answer.degraded["reason"]


@contextmanager
def answering(reply: Callable[[socket.socket], None]) -> Iterator[str]:
    """A peer that takes a connection and does something else than its duty."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1 << 20)
                    reply(connection)
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    thread.join(0.1)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        HEAD % 10**12,
        HEAD % 50 + b"short",
        HEAD % 4 + b"junk",
        HEAD % 2 + b"too long",
        b"x" * 20_000,
    ],
)
async def test_a_peer_that_answers_nonsense_is_an_error_and_never_a_hang(recommender: Recommender, said: bytes) -> None:
    with answering(lambda connection: connection.sendall(said)) as address:
        peer = Peer(address)
        retrieval = RemoteRetrieval(peer, recommender.bundle.digest, wire.Shape.of(recommender))
        query = recommender.query(request(STATES[0]), STATES[0])
        with pytest.raises((PeerError, wire.WireError)):
            await retrieval(query, recommender.user_side(query), 1.0)
        peer.close()


async def test_a_peer_that_does_not_answer_costs_its_time_limit_and_no_more() -> None:
    from time import monotonic

    release = threading.Event()
    with answering(lambda connection: release.wait(10) and None) as address:
        began = monotonic()
        with pytest.raises(PeerError, match="time"):
            await Peer(address).post("/v1/rank", Frame(1, (b"x",)), 0.05)
        assert monotonic() - began < 2
        release.set()


async def test_a_connection_that_the_peer_closed_meanwhile_is_made_anew() -> None:
    with answering(lambda connection: connection.sendall(HEAD % 2 + b"ok")) as address:  # one reply a connection
        peer = Peer(address)
        assert [await peer.post("/", Frame(1, (b"x",)), 5) for _ in range(3)] == [b"ok"] * 3
        peer.close()


def test_three_processes_answer_as_one_does(tmp_path: Path) -> None:
    inner = [tiny_options(tmp_path, role=role, port=free_port()) for role in ("retrieval", "ranking")]
    front = tiny_options(
        tmp_path, role="recommender", retrieval=f"127.0.0.1:{inner[0].port}", ranking=f"127.0.0.1:{inner[1].port}", port=free_port()
    )
    fused = tiny_options(tmp_path, events=f"dir:{tmp_path / 'fused'}", port=free_port())
    with running(inner[0]) as retrieval, running(inner[1]), running(front) as divided, running(fused) as whole:
        for user in ("u00", "u05", "stranger"):
            asked = {"user_id": user, "k": 8}
            divided.ask("POST", "/v1/recommendations", asked)  # connects
            lists = [server.ask("POST", "/v1/recommendations", asked)[1] for server in (divided, whole)]
            assert [one["item_id"] for one in lists[0]["items"]] == [one["item_id"] for one in lists[1]["items"]]
        assert retrieval.ask("POST", "/v1/retrieve", b"junk")[0] == 422
        retrieval.kill()
        status, answer = divided.ask("POST", "/v1/recommendations", {"user_id": "u07", "k": 8})
        assert (status, len(answer["items"])) == (200, 8)
        assert "retrieval" in answer["degraded"]["reason"]
