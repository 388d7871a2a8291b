"""The HTTP server: aiohttp's low-level server on uvloop, a connection guarded by `serving.http.connection`; it drains before it stops.

aiohttp is chosen for its parser (llhttp, strict), its bounds on heads and on pipelined requests, and because it is a protocol factory for
`loop.create_server`: a socket can be handed down and connections be guarded by public interfaces alone. Measured on one core: a request
costs 0.12 ms more CPU than with the hand-written protocol it replaces; h11 would have cost 0.35 ms, stock uvicorn 0.12 ms as well, and that
loses the body of a request that offers an upgrade to h2c.
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Sequence

from aiohttp import HttpVersion, HttpVersion11, web
from aiohttp.http import HttpProcessingError

from serving import messages
from serving.http.app import JSON, App, Scope, Told
from serving.http.body import Disconnected, read_body
from serving.http.connection import Connection

KEEP_ALIVE_SECONDS = 75  # longer than a proxy's idle timeout, so that the proxy closes first
GRACE_SECONDS = 10.0  # for requests in flight when the server stops
LINGER_SECONDS = 2.0  # for kept connections to ask once more and be told, in the answer, that it was the last
BODY_LEFT_SECONDS = 2.0  # what is left of a body that was refused is read and dropped this long, so that the client sees why
_FILES = 96  # descriptors that are not connections


class Server:
    """Answers an application's routes on any number of listening sockets. `connections`: the most that are open at a time."""

    def __init__(self, app: App, connections: int) -> None:
        self.app, self.draining = app, False
        self.open: set[Connection] = set()
        self._most = min(connections, max(_descriptors() - _FILES, 16))
        self._http = web.Server(
            self._answer,
            access_log=None,
            logger=_quiet_logger(),
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=BODY_LEFT_SECONDS,
            auto_decompress=False,
        )

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self._http(), self.open, self._most)

    async def close(self) -> None:
        """Let requests in flight end, and close every connection."""
        self._http.pre_shutdown()
        await self._http.shutdown(GRACE_SECONDS)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        connection = transport.get_protocol() if transport is not None else None
        if not isinstance(connection, Connection):
            raise ConnectionResetError("the client went away")
        connection.began()
        try:
            headers = [(name.lower(), value) for name, value in request.raw_headers]
            problem = framing_problem(headers, request.version)
            if problem is not None:
                return self._response((problem.status, JSON, messages.error(problem), [(b"connection", b"close")]), True)
            scope: Scope = {"method": request.method, "path": request.path, "headers": headers, "arrived": connection.arrived}
            told = await self.app.respond(scope, lambda: read_body(request, self.app.max_body, connection.whole))
        except Disconnected:
            told = (400, JSON, b"", [(b"connection", b"close")])  # nobody reads it
        finally:
            connection.ended()
        return self._response(told, any(name == b"upgrade" for name, _ in headers))

    def _response(self, told: Told, last: bool) -> web.Response:
        """`last`: the connection ends with it. So it does after an offer to upgrade: aiohttp does not read what follows such a request."""
        status, kind, body, extra = told
        headers = {"content-type": kind.decode("latin-1"), "server": "shortlist"}
        closing = last or self.draining
        for name, value in extra:
            if name == b"connection":
                closing = True
            else:
                headers[name.decode("latin-1")] = value.decode("latin-1")
        response = web.Response(status=status, body=body, headers=headers)
        if closing:
            response.force_close()
        return response


def _quiet_logger() -> logging.Logger:
    """aiohttp's errors; but not a traceback for every request that cannot be read, which anybody can send by the thousand."""
    logger = logging.getLogger("serving.http")
    logger.addFilter(_of_our_own)
    return logger


def _of_our_own(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def framing_problem(headers: Sequence[tuple[bytes, bytes]], version: HttpVersion) -> messages.WireProblem | None:
    """What is wrong with how a request says where it ends and to whom it goes, where another reader of it might see something else."""
    coding = [value for name, value in headers if name == b"transfer-encoding"]
    if coding and (coding != [b"chunked"] or version < HttpVersion11 or any(name == b"content-length" for name, _ in headers)):
        return messages.WireProblem(400, "bad_framing", "transfer-encoding may be `chunked`, alone and without a content-length")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (not hosts and version >= HttpVersion11):
        return messages.WireProblem(400, "bad_host", f"a request has one host header, this one has {hosts}")
    return None


def _descriptors() -> int:
    """How many files this process may have open, after asking for as many as it may ask for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; `::` listens for IPv4 too."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"cannot listen on {host!r} ({error.strerror}): give an address of this machine as --host") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(f"port {port} on {host} cannot be bound ({error.strerror}): stop what uses it, or give another --port") from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """A port that only processes of this user may listen on together, while the socket is kept. Raises OSError when it is taken."""
    bind(host, port).close()
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(address)
    return held


class Stop:
    """Asks a running server to stop: `begin` starts the draining, `now` ends its taking of new connections at once."""

    def __init__(self) -> None:
        self._begun, self._now = asyncio.Event(), asyncio.Event()

    def begin(self) -> None:
        self._begun.set()

    def now(self) -> None:
        """Something else takes the new connections already."""
        self._now.set()
        self._begun.set()

    async def begins(self) -> None:
        await self._begun.wait()

    async def accepted(self, seconds: float | None) -> None:
        """Returns when new connections need not be taken any more, after `seconds` at the latest; None: not before `now`."""
        try:
            async with asyncio.timeout(seconds):
                await self._now.wait()
        except TimeoutError:
            return


async def run(server: Server, listener: socket.socket, stop: Stop, on_drain: Callable[[], None], drain_seconds: float | None) -> None:
    """Serve until `stop`, then drain so that no request is lost.

    No longer ready; each answer tells its connection that it was the last; new connections are taken for `drain_seconds` (None: until
    somebody else takes them); then connections that are still open have `LINGER_SECONDS` to ask once more, and what is in flight is
    finished.
    """
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(server.connection, sock=listener)
    await stop.begins()
    on_drain()
    server.draining = True
    await stop.accepted(drain_seconds)
    listening.close()
    ends = loop.time() + LINGER_SECONDS
    while server.open and loop.time() < ends:
        await asyncio.sleep(0.02)
    await server.close()
