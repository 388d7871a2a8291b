"""The HTTP server: uvicorn on httptools and uvloop, without what costs time and serves nobody here; it drains before it stops."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE_SECONDS = 75  # longer than a proxy's idle timeout, so that the proxy closes first
FIRST_REQUEST_SECONDS = 5.0  # a connection that has sent no request by then is closed
GRACE_SECONDS = 10  # for requests in flight when the server stops


class Protocol(HttpToolsProtocol):
    """Stamps each request as it is read, and closes connections that send none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle = self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["arrived"] = perf_counter()  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._idle.cancel()
        super().on_headers_complete()

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


async def run(app: Callable[..., object], listener: socket.socket, on_drain: Callable[[], None], drain_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT, then drain: no longer ready, still answering for `drain_seconds`, then finish what is in flight."""
    config = uvicorn.Config(
        app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False, date_header=False,
        proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip
    server = Server(config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        on_drain()
        loop.call_later(drain_seconds, setattr, server, "should_exit", True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listener])
