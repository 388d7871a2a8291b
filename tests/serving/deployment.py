"""A deployment that faults can be made in: one fused server, or recommender, retrieval and ranking; Redis or SQLite; a proxy before each.

Everything is on loopback. What breaks is broken from outside: processes are killed, connections delayed, files limited, locked or damaged,
the wall clock shifted. The servers are told nothing of it.
"""

import json
import os
import resource
import shutil
import socket
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from serving.worker.options import Options
from tests.serving.servers import Running, free_port, running, tiny_options, until

SHIM = Path(__file__).parent / "wall_clock.c"
STORES, LAYOUTS = ("redis", "sqlite"), ("split", "fused")


class Proxy:
    """A TCP port in front of another: what comes back can be delayed."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self._woken, self._target = threading.Event(), ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def slow(self, seconds: float) -> None:
        """Delay every reply from now on; 0: none, and let go what is held."""
        self.delay = seconds
        if seconds:
            self._woken.clear()
        else:
            self._woken.set()

    def close(self) -> None:
        self.slow(0)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.settimeout(None)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pump, args=(source, sink, back), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 18):
                if back and self.delay:
                    self._woken.wait(self.delay)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            if one is source:
                one.close()


class Deployment:
    """Started by `with`; `ask` and `post` are one request each to the front: what users ask."""

    def __init__(self, folder: Path, store: str, layout: str = "split") -> None:
        self.folder, self.store, self.layout = folder, store, layout
        self.events, self.states = folder / "events", folder / "events" / "states.sqlite"
        self.servers: dict[str, Running] = {}
        self._contexts: dict[str, ExitStack] = {}
        self.redis: subprocess.Popen[bytes] | None = None
        self._writer: sqlite3.Connection | None = None

    def __enter__(self) -> "Deployment":
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "offset").write_bytes(struct.pack("<q", 0))
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", self.folder / "wall_clock.so", SHIM, "-ldl"], check=True)
        options = tiny_options(self.folder)
        self.bundle = options.bundle
        roles = ("retrieval", "ranking") if self.layout == "split" else ()
        inner = {role: replace(options, role=role, port=free_port()) for role in roles}
        self.proxies = {role: Proxy(one.port) for role, one in inner.items()}
        state = ""
        if self.store == "redis":
            self._redis_port = free_port()
            self.start_redis()
            self.proxies["redis"] = Proxy(self._redis_port)
            state = f"redis://127.0.0.1:{self.proxies['redis'].port}/0"
        addresses = {role: f"127.0.0.1:{self.proxies[role].port}" for role in inner}
        front = replace(options, role="recommender" if inner else "fused", port=free_port(), state=state, **addresses)
        self._options: dict[str, Options] = {**inner, "front": front}
        for role in self._options:
            self.start(role)
        return self

    def __exit__(self, *_: Any) -> None:
        for context in reversed(self._contexts.values()):
            context.close()
        if self.redis is not None:
            self.redis.kill()
            self.redis.wait(10)
        for proxy in self.proxies.values():
            proxy.close()

    @property
    def front(self) -> Running:
        return self.servers["front"]

    def start(self, role: str) -> None:
        """Start a server, or start it again, on its port; returns when it is ready."""
        context = ExitStack()
        shifted = {"LD_PRELOAD": str(self.folder / "wall_clock.so"), "WALL_CLOCK_OFFSET": str(self.folder / "offset")}
        self.servers[role] = context.enter_context(running(self._options[role], environment=shifted if role == "front" else None))
        self._contexts[role] = context

    def kill(self, role: str) -> None:
        self.servers[role].kill()
        self._contexts[role].close()

    def start_redis(self) -> None:
        """A Redis that keeps its data in a file, so that it is there after it was killed."""
        options = {
            "port": self._redis_port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "yes",
            "dir": self.folder,
            "loglevel": "warning",
        }
        line = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
        self.redis = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        until(self._redis_listens, 10)

    def _redis_listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._redis_port), 1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        return False

    def kill_redis(self) -> None:
        assert self.redis is not None
        self.redis.kill()
        self.redis.wait(10)

    def damage_states(self) -> None:
        """The state database becomes something else, in place; a good copy is kept beside it."""
        with closing(sqlite3.connect(self.states)) as db, closing(sqlite3.connect(self.folder / "kept.sqlite")) as kept:
            db.backup(kept)
        for path in (self.states, Path(f"{self.states}-wal"), Path(f"{self.states}-shm")):
            if path.exists():
                with path.open("r+b") as file:
                    file.write(b"\x5a" * max(path.stat().st_size, 4096))

    def restore_states(self) -> None:
        """The good copy takes the damaged one's place, as a new file."""
        for suffix in ("-wal", "-shm"):
            Path(f"{self.states}{suffix}").unlink(missing_ok=True)
        (self.folder / "kept.sqlite").replace(self.states)

    def fill_disk(self, full: bool) -> None:
        """The front can write nothing any more, to no file: its limit on a file's size is one byte."""
        hard = resource.RLIM_INFINITY
        resource.prlimit(self.front.process.pid, resource.RLIMIT_FSIZE, (1 if full else hard, hard))

    def lock_log(self) -> None:
        """Somebody else holds the event log's write lock."""
        self._writer = sqlite3.connect(self.events / "events.sqlite", isolation_level=None, check_same_thread=False, timeout=10)
        self._writer.execute("BEGIN IMMEDIATE")

    def unlock_log(self) -> None:
        assert self._writer is not None
        self._writer.execute("ROLLBACK")
        self._writer.close()

    def damage_lists(self) -> None:
        """Every user's batch list names items the bundle lacks; the front starts anew, so it has no list of its own either."""
        path = self.bundle / "fallback" / "user_rows.npy"
        shutil.copy(path, self.folder / "user_rows.npy")
        self._write_over(path, np.load(path) + 10_000_000)
        self.kill("front")
        self._options["front"] = replace(self._options["front"], verify=False)
        self.start("front")

    def restore_lists(self) -> None:
        self._write_over(self.bundle / "fallback" / "user_rows.npy", np.load(self.folder / "user_rows.npy"))

    def _write_over(self, path: Path, rows: np.ndarray) -> None:
        """In place: servers have the file mapped."""
        os.chmod(path, 0o644)
        header = path.stat().st_size - rows.nbytes
        with path.open("r+b") as file:
            file.seek(header)
            file.write(rows.tobytes())

    def shift_clock(self, seconds: int) -> None:
        with (self.folder / "offset").open("r+b") as file:
            file.write(struct.pack("<q", seconds))

    def ask(self, user: str) -> dict[str, Any]:
        """One list. Raises AssertionError when it is not answered with 200."""
        status, body = self.front.ask("POST", "/v1/recommendations", {"user_id": user})
        assert status == 200, body
        return dict(body)

    def post(self, events: list[dict[str, str]]) -> int:
        """The status of one batch of events."""
        return self.front.ask("POST", "/v1/events", json.dumps({"events": events}).encode())[0]


def stolen_ms() -> float:
    """Milliseconds so far in which the machine's cores were given to other guests of its host."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) * 1e3 / os.sysconf("SC_CLK_TCK")


def acknowledged_once(folder: Path) -> Iterator[str]:
    """Ids in the event log, in its order."""
    from serving.events.sqlite import read_log

    return (event.event_id for _, event in read_log(folder))
