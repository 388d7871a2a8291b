"""The HTTP server: uvicorn on httptools and uvloop, without what costs time and serves nobody here; it drains before it stops.

uvicorn reads requests, keeps their order and closes connections; a request that came whole is answered in one write (`App.direct`).
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.app import Scope

KEEP_ALIVE_SECONDS = 75  # longer than a proxy's idle timeout, so that the proxy closes first
FIRST_REQUEST_SECONDS = 5.0  # a connection that has sent no request by then is closed
_HEADS, _LONGEST_HEAD = 64, 2048  # remembered of one connection, and the bytes of each
GRACE_SECONDS = 10  # for requests in flight when the server stops


class _Head(NamedTuple):
    """What the parser made of the head of a request for one of the application's own routes."""

    scope: dict[str, Any]
    length: int  # of the body
    keep_alive: bool


class _Whole:
    """A request that came whole, as uvicorn's protocol sees those under way."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete", "response_started")

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive, self.message_event = keep_alive, self
        self.disconnected = self.response_started = self.response_complete = False

    def set(self) -> None:
        """Nobody waits for more of it."""


class Protocol(HttpToolsProtocol):
    """Stamps each request as it is read, answers it directly where it came whole, and closes connections that send none.

    A client asks again and again with the same head: what the parser made of it is remembered for its connection, by all its bytes.
    """

    _quiet_since: float | None = None  # by the loop's clock; None: a request is under way
    _within = False  # the parser is within a message
    _begun = 0  # messages the parser has begun
    _heads: dict[bytes, _Head]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heads = {}
        self._idle = self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._within or not (self.cycle is None or self.cycle.response_complete):
            super().data_received(data)
            return
        end = data.find(b"\r\n\r\n") + 4
        known = self._heads.get(data[:end])
        if known is not None and len(data) == end + known.length:
            self._quiet_since = None
            self.cycle = cycle = cast(Any, _Whole(known.keep_alive))
            task = self.loop.create_task(self._answer(cycle, {**known.scope, "arrived": perf_counter()}, data[end:]))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        begun = self._begun
        super().data_received(data)
        if self._begun == begun + 1 and not self._within and self.parser is not None:
            self._remember(data[:end], len(data) - end)

    def _remember(self, head: bytes, length: int) -> None:
        """The head of the request just read, whose body was `length` bytes, for the next time."""
        scope, names = self.scope, [name for name, _ in self.headers]
        plain = not {b"transfer-encoding", b"expect", b"upgrade"} & set(names) and names.count(b"content-length") == (length > 0)
        ours = scope["path"] in getattr(self.app, "routes", ()) and length <= self.app.max_body
        if plain and ours and len(head) <= _LONGEST_HEAD:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[head] = _Head(dict(scope), length, self.cycle.keep_alive)

    async def _answer(self, cycle: Any, scope: Scope, body: bytes) -> None:
        response = await self.app.direct(scope, body)
        if not (cycle.disconnected or self.transport.is_closing()):
            self._respond(cycle, response)

    def on_message_begin(self) -> None:
        self._within = True
        self._begun += 1
        super().on_message_begin()
        self.scope["arrived"] = perf_counter()  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._idle.cancel()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self.loop.create_task(self._run(cycle, app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer directly what is all here and is the application's own; the rest by ASGI."""
        whole = not cycle.more_body and self.flow is not None and not self.flow.write_paused
        response = await app.direct(cycle.scope, bytes(cycle.body)) if whole else None
        if response is None:
            await cycle.run_asgi(app)
        elif not (cycle.disconnected or self.transport.is_closing()):
            self._respond(cycle, response)

    def _respond(self, cycle: RequestResponseCycle, response: bytes) -> None:
        if not cycle.keep_alive:
            response = response.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
        self.transport.write(response)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """uvicorn's, with one timer a connection instead of one a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._quiet_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been quiet for its time; look again when one is quiet for less."""
        quiet = 0.0 if self._quiet_since is None else self.loop.time() - self._quiet_since
        if quiet >= self.timeout_keep_alive and not self.transport.is_closing():
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive - quiet, self.timeout_keep_alive_handler)

    def on_message_complete(self) -> None:
        self._within = False
        super().on_message_complete()

    def _close_if_silent(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server with our own signals: SIGTERM first says "not ready", then stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, share: bool) -> socket.socket:
    """A listening socket; `share`: several processes may bind it and the kernel spreads connections over them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"port {port} on {host} cannot be bound ({error.strerror}): stop what uses it, or give another --port") from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def config(app: Callable[..., object]) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, date_header=False,
        proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip


async def run(app: Callable[..., object], listener: socket.socket, on_drain: Callable[[], None], drain_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT, then drain: no longer ready, still answering for `drain_seconds`, then finish what is in flight."""
    server = Server(config(app))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        on_drain()
        loop.call_later(drain_seconds, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listener])
