"""The HTTP server: uvicorn with our protocol and signals, without what costs time and serves nobody here; it drains before it stops."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from serving.http.protocol import Protocol

KEEP_ALIVE_SECONDS = 75  # longer than a proxy's idle timeout, so that the proxy closes first
GRACE_SECONDS = 10  # for requests in flight when the server stops


class Server(uvicorn.Server):
    """uvicorn's server with our own signals: SIGTERM first says "not ready", then stops. Until then it sleeps, and does not tick."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        """uvicorn's without what it does ten times a second and nobody here reads: 1.7 ms of CPU a second in an idle process."""
        await self.stopping.wait()

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
        loop.call_later(drain_seconds, server.stopping.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listener])
