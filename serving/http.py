"""The HTTP server: uvicorn on httptools and uvloop, without what costs time and serves nobody here; it drains before it stops.

uvicorn reads requests, keeps their order and closes connections; a request that came whole is answered in one write (`App.direct`).
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

KEEP_ALIVE_SECONDS = 75  # longer than a proxy's idle timeout, so that the proxy closes first
FIRST_REQUEST_SECONDS = 5.0  # a connection that has sent no request by then is closed
GRACE_SECONDS = 10  # for requests in flight when the server stops


class Protocol(HttpToolsProtocol):
    """Stamps each request as it is read, answers it directly where it came whole, and closes connections that send none."""

    _quiet_since: float | None = None  # by the loop's clock; None: a request is under way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle = self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def on_message_begin(self) -> None:
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
