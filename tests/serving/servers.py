"""Servers for tests: a door in this process over the tiny bundle, and real processes on loopback ports."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from serving.bundle.bundle import show
from serving.http.routes import Api
from serving.telemetry.logs import configure_logs
from serving.worker.assemble import Parts, assemble
from serving.worker.options import Options
from serving.worker.release import Release, write_release
from tests.serving.tiny_bundle import DAY, SYSTEM_FILE, states, write_tiny

NOON = f"{time.strftime('%Y-%m-%d', time.gmtime(DAY * 86_400))}T12:00:00+00:00"  # half a day after the cut


def tiny_options(folder: Path, **changes: Any) -> Options:
    """Options of a server over a tiny bundle written below `folder`; its clock starts half a day after the cut."""
    bundle, users = write_tiny(folder / "bundles"), folder / "users"
    states().save(users)
    made = Options(bundle, str(SYSTEM_FILE), users=users, events=f"dir:{folder / 'events'}", clock=NOON, log_level="error")
    return replace(made, **changes)


def in_process(options: Options) -> Parts:
    """A ready worker without a socket."""
    parts = assemble(options, configure_logs("error"))
    parts.app.ready = True
    return parts


@asynccontextmanager
async def door(options: Options) -> AsyncIterator[tuple[Api, httpx.AsyncClient]]:
    """A ready worker without a socket, and a client of it."""
    parts = in_process(options)
    assert isinstance(parts.app, Api)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door") as client:
        yield parts.app, client
    for close in parts.closers:
        close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A server process."""

    process: subprocess.Popen[bytes]
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and decoded JSON body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else body if isinstance(body, bytes) else json.dumps(body), headers or {})
            reply = connection.getresponse()
            text = reply.read()
            return reply.status, json.loads(text) if reply.getheader("content-type", "").startswith("application/json") else text
        finally:
            connection.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def running(
    options: Options, ready: str = "/readyz", environment: Mapping[str, str] | None = None, files: int = 0, **changes: Any
) -> Iterator[Running]:
    """A server process that has answered 200 on `ready`; stopped with SIGTERM at the end. `environment`: variables more; `files`: that it
    may have open, 0: as many as this process.
    """
    options = replace(options, port=options.port if options.port != 8080 else free_port(), **changes)
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})}
    line = [sys.executable, "-X", "faulthandler", "-m", "serving", *options.arguments()]
    process = subprocess.Popen([*(["prlimit", f"--nofile={files}:{files}"] if files else []), *line], env=given)
    server = Running(process, options.port)
    try:
        try:
            until(lambda: _ready(server, ready), 120)
        except AssertionError:
            process.send_signal(signal.SIGABRT)  # where each of its threads stands is on its stderr then
            raise
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


@contextmanager
def following(folder: Path, **changes: int) -> Iterator[tuple[Running, Path]]:
    """A supervised server that follows a release file naming the tiny bundle."""
    options = tiny_options(folder, **changes)
    file = folder / "release.json"
    assert options.bundle is not None
    write_release(file, Release(str(options.bundle), str(options.users), show(options.bundle)["digest"]))
    with running(options, follow=file, bundle=None, users=None) as server:
        yield server, file


def until(true: Any, seconds: float) -> None:
    """Ask again and again until it is true; the pause in between is what a waiting process costs, not what the test relies on."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"not so within {seconds} s"
        time.sleep(0.02)


def _ready(server: Running, path: str) -> bool:
    assert server.process.poll() is None, f"the server ended with {server.process.returncode}"
    try:
        return server.ask("GET", path)[0] == 200
    except OSError:
        return False
