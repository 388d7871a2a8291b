"""What a server allows a client: time for heads, bodies and reading, bytes, connections; over real sockets, the deadlines made short."""

import asyncio
import gzip
import json
import re
import socket
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from serving.http import body as bodies
from serving.http import connection as connections
from serving.http.app import JSON, App, Reply, Route, Scope
from serving.http.auth import Guard
from serving.http.body import unpacked
from serving.http.server import Server, Stop, bind, run
from serving.messages import MAX_BODY, WireProblem
from serving.telemetry.metrics import Metrics

SHORT = 0.2  # seconds, in the place of each deadline
LATER = 5.0  # by then a deadline has passed, on a busy machine too
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class Echo(App):
    """Answers a body with itself, a long list with many bytes, and one path only when it is let."""

    def __init__(self) -> None:
        super().__init__(Metrics("sha256:test"), Guard(), None)
        self.let = asyncio.Event()
        self.waiting = asyncio.Event()
        self.ready = True
        self.routes |= {
            "/echo": Route("POST", None, self.echo), "/long": Route("GET", None, self.long), "/wait": Route("GET", None, self.wait),
        }  # fmt: skip

    async def echo(self, _: Scope, body: bytes) -> Reply:
        return 200, JSON, body

    async def long(self, _: Scope, __: bytes) -> Reply:
        return 200, JSON, b"x" * (8 << 20)

    async def wait(self, _: Scope, __: bytes) -> Reply:
        self.waiting.set()
        await self.let.wait()
        return 200, JSON, b"{}"


class Served:
    """A running server and its end."""

    def __init__(self, app: Echo, port: int, stop: Stop, server: Server) -> None:
        self.app, self.port, self.stop, self.server = app, port, stop, server

    async def open(self, host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host, self.port)

    async def said(self, *parts: bytes, host: str = "127.0.0.1") -> bytes:
        """Everything the server says to these bytes until it closes, or is silent for long."""
        reader, writer = await self.open(host)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.02)  # apart on the wire
        return await rest(reader, writer)


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What is said until the connection ends. Raises `TimeoutError` where it does not."""
    async with asyncio.timeout(LATER):
        found = b""
        with suppress(ConnectionError):
            while part := await reader.read(1 << 16):
                found += part
    writer.close()
    return found


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head and body of the next answer."""
    async with asyncio.timeout(LATER):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        return int(head.split()[1]), head.lower(), await reader.readexactly(int(length[1]) if length else 0)


@asynccontextmanager
async def serving(host: str = "127.0.0.1", connections: int = 64, drain_seconds: float = 0.0) -> AsyncIterator[Served]:
    app, stop = Echo(), Stop()
    listener, server = bind(host, 0), Server(app, connections)
    task = asyncio.create_task(run(server, listener, stop, lambda: setattr(app, "ready", False), drain_seconds))
    try:
        yield Served(app, listener.getsockname()[1], stop, server)
    finally:
        app.let.set()
        stop.now()
        await task


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", SHORT)
    monkeypatch.setattr(bodies, "BODY_SECONDS", SHORT)
    return iter(())


def post(body: bytes, *headers: str) -> bytes:
    head = "".join(f"{one}\r\n" for one in (f"content-length: {len(body)}", *headers))
    return f"POST /echo HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode() + body


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("begin", [b"", b"GET /heal", HEALTH[:-2] + b"x-much: "], ids=["silent", "a line", "headers without end"])
@pytest.mark.parametrize("before", [b"", HEALTH, post(b"{}")], ids=["first", "after a GET", "after a POST"])
async def test_a_head_that_does_not_end_is_given_up_whichever_it_is(begin: bytes, before: bytes) -> None:
    if before and not begin:
        return  # an idle connection, which may stay
    async with serving() as served:
        reader, writer = await served.open()
        if before:
            writer.write(before)
            assert (await reply(reader))[0] == 200
        writer.write(begin)
        assert b"HTTP/1.1 200" not in await rest(reader, writer)


@pytest.mark.usefixtures("short")
async def test_a_head_that_comes_by_drops_is_given_up_all_the_same() -> None:
    async with serving() as served:
        reader, writer = await served.open()

        async def drop() -> None:
            with suppress(ConnectionError):
                writer.write(HEALTH[:-2] + b"x: ")
                while True:
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(SHORT / 20)

        dropping = asyncio.create_task(drop())
        assert await rest(reader, writer) == b""
        dropping.cancel()


@pytest.mark.usefixtures("short")
async def test_a_body_that_does_not_come_is_a_408_and_the_end() -> None:
    async with serving() as served:
        said = await served.said(post(b"x" * 100)[:-50])
        assert said.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in said.lower()
        said = await served.said(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab")
        assert said.startswith(b"HTTP/1.1 408")


@pytest.mark.usefixtures("short")
async def test_an_answer_that_is_not_read_is_given_up() -> None:
    async with serving() as served:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
        await asyncio.get_running_loop().sock_sendall(sock, b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(LATER):
            while not served.server.open:
                await asyncio.sleep(0.01)
            while served.server.open:
                await asyncio.sleep(0.01)
        assert served.server.open == set()
        sock.close()


async def test_heads_and_bodies_have_their_bounds_in_bytes() -> None:
    async with serving() as served:
        said = await served.said(HEALTH[:-2] + b"x: " + b"a" * (64 << 10) + b"\r\n\r\n")
        assert said[9:12] in (b"400", b"431")
        many = b"".join(b"x-%05d: a\r\n" % number for number in range(20_000))
        assert b" 200 " not in (await served.said(HEALTH[:-2] + many + b"\r\n"))[:20]
        reader, writer = await served.open()
        writer.write(post(b"")[:-2].replace(b"length: 0", b"length: %d" % (MAX_BODY + 1)) + b"\r\n")
        status, head, body = await reply(reader)
        assert (status, json.loads(body)["error"]["code"], b"connection: close" in head) == (413, "body_too_large", True)
        writer.close()
        reader, writer = await served.open()
        writer.write(post(b"x" * MAX_BODY))
        assert len((await reply(reader))[2]) == MAX_BODY
        writer.close()


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
async def test_a_packed_body_is_unpacked_within_the_same_bound(coding: str) -> None:
    pack = gzip.compress if "gzip" in coding else zlib.compress
    async with serving() as served:
        for body, status in ((b'{"a":1}', 200), (b"x" * MAX_BODY, 200), (b"x" * (MAX_BODY + 1), 413), (b"x" * (32 << 20), 413)):
            asked = post(pack(body), f"content-encoding: {coding}")
            reader, writer = await served.open()
            writer.write(asked)
            got, _, told = await reply(reader)
            assert (got, got != 200 or told == body) == (status, True)
            writer.close()
        for body in (b"", b"no gzip", pack(b"{}")[:-3], pack(b"{}") + b"more", pack(b"{}") * 2):
            with pytest.raises(WireProblem, match=r"content|body"):
                unpacked(body, [(b"content-encoding", coding.encode())], MAX_BODY)
        assert (await served.said(post(b"{}", "content-encoding: br", "connection: close"))).startswith(b"HTTP/1.1 415")
        twice = post(pack(pack(b"{}")), f"content-encoding: {coding}, {coding}", "connection: close")
        assert (await served.said(twice)).startswith(b"HTTP/1.1 415")


async def test_one_connection_too_many_makes_the_quietest_go_and_never_one_at_work() -> None:
    async with serving(connections=3) as served:
        held = [await served.open() for _ in range(3)]
        for reader, writer in held:
            writer.write(HEALTH)
            assert (await reply(reader))[0] == 200
        reader, writer = await served.open()
        writer.write(HEALTH)
        assert (await reply(reader))[0] == 200
        assert await rest(*held[0]) == b""  # it was quiet longest
        busy = [held[1], held[2], (reader, writer)]
        for _, one in busy:
            one.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(LATER):
            while sum(connection._busy for connection in served.server.open) < 3:
                await asyncio.sleep(0.01)
        assert (await served.said(HEALTH)).startswith(b"HTTP/1.1 503")
        served.app.let.set()
        assert [(await reply(one))[0] for one, _ in busy] == [200, 200, 200]
        for _, one in busy:
            one.close()


async def test_an_offered_upgrade_is_answered_as_what_it_is() -> None:
    offered = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    async with serving() as served:
        said = await served.said(post(b'{"k":1}', *offered))
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b'{"k":1}')
        assert not (await served.said(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_both_internets_are_listened_to() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    asked = HEALTH[:-2] + b"connection: close\r\n\r\n"
    for host in ("::", "[::]"):
        async with serving(host) as served:
            assert [(await served.said(asked, host=one))[:12] for one in ("::1", "127.0.0.1")] == [b"HTTP/1.1 200"] * 2


async def test_while_it_drains_a_kept_connection_is_told_in_its_answer_and_nothing_in_flight_is_lost() -> None:
    async with serving(drain_seconds=LATER) as served:
        kept, waiting = await served.open(), await served.open()
        for reader, writer in (kept, waiting):
            writer.write(HEALTH)
            assert b"connection: close" not in (await reply(reader))[1]
        waiting[1].write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await served.app.waiting.wait()
        served.stop.begin()
        kept[1].write(HEALTH)
        status, head, _ = await reply(kept[0])
        assert (status, b"connection: close" in head) == (200, True)
        assert await rest(*kept) == b""
        new = await served.said(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")  # still taken, and told to go elsewhere
        assert new.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in new.lower()
        served.stop.now()
        await asyncio.sleep(0.05)
        served.app.let.set()
        status, head, _ = await reply(waiting[0])
        assert (status, b"connection: close" in head) == (200, True)
        waiting[1].close()


async def test_a_body_is_asked_for_where_the_client_waits_to_be_asked() -> None:
    async with serving() as served:
        reader, writer = await served.open()
        writer.write(post(b'{"k":1}', "expect: 100-continue")[:-7])
        async with asyncio.timeout(LATER):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b'{"k":1}')
        status, _, body = await reply(reader)
        assert (status, body) == (200, b'{"k":1}')
        writer.close()
