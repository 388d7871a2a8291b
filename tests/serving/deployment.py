"""A deployment that faults can be made in: one fused server, one of two workers that follows a release file, or recommender, retrieval
and ranking; Redis or SQLite; a proxy before each.

Everything is on loopback. What breaks is broken from outside: processes are killed, connections delayed, files limited, locked or damaged,
the wall clock shifted. The servers are told nothing of it.
"""

import itertools
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from serving.events.consumer import Consumer
from serving.events.inbox import log_name
from serving.events.sqlite import SqliteLog, read_log
from serving.state.sqlite import SqliteStore
from serving.state.states import States, open_store
from serving.state.user_state import StateTable
from serving.system import Learning
from serving.worker.options import Options
from serving.worker.release import Release, write_release
from tests.serving.asking import children
from tests.serving.proxy import Proxy
from tests.serving.servers import Running, free_port, running, tiny_options, until
from tests.serving.tiny_bundle import write_tiny

SHIM = Path(__file__).parent / "wall_clock.c"
STORES, LAYOUTS = ("redis", "sqlite"), ("split", "fused", "workers")
SMALL_DISK = "size=512k"  # that exposures are written to


def _mount(folder: Path) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", SMALL_DISK, "tmpfs", str(folder)]


@cache
def may_mount() -> bool:
    """Whether this user may have a disk that can be filled."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(_mount(Path(folder)), capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


class Deployment:
    """Started by `with`; `ask` and `post` are one request each to the front: what users ask."""

    def __init__(self, folder: Path, store: str, layout: str = "split") -> None:
        self.folder, self.store, self.layout = folder, store, layout
        self.events, self.states = folder / "events", folder / "events" / "states.sqlite"
        self.servers: dict[str, Running] = {}
        self._contexts: dict[str, ExitStack] = {}
        self.redis: subprocess.Popen[bytes] | None = None
        self._writer: sqlite3.Connection | None = None
        self._posting, self._posted = threading.Event(), threading.Thread()
        self._refused: list[Any] = []  # of what was posted

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
        self.small = self._small_disk()
        front = replace(front, exposures=self.small or front.exposures)
        if self.layout == "workers":
            self.release = self.folder / "release.json"
            write_release(self.release, Release(str(self.bundle), str(front.users)))
            front = replace(front, workers=2, follow=self.release)
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
        if self.small is not None:
            subprocess.run(["umount", "--lazy", self.small], check=False)

    def _small_disk(self) -> Path | None:
        """A disk of its own for the exposures, where this user may mount one."""
        if not may_mount():
            return None
        folder = self.folder / "exposures"
        folder.mkdir()
        subprocess.run(_mount(folder), check=True)
        return folder

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

    def empty_redis(self) -> None:
        """It is killed and comes back without what it held."""
        self.kill_redis()
        shutil.rmtree(self.folder / "appendonlydir")
        self.start_redis()

    def restart_without_redis(self) -> None:
        """The front starts while the store is away."""
        self.kill_redis()
        self.kill("front")
        self.start("front")

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
        for pid in (self.front.process.pid, *children(self.front)):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 if full else hard, hard))

    def fill_small_disk(self) -> None:
        assert self.small is not None
        with suppress(OSError), (self.small / "full").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def free_small_disk(self) -> None:
        assert self.small is not None
        (self.small / "full").unlink()

    def move_log(self, away: bool) -> None:
        """The event log's files are taken from their place, or put back."""
        kept = self.folder / "kept log"
        kept.mkdir(exist_ok=True)
        source, to = (self.events, kept) if away else (kept, self.events)
        for path in source.glob("events.sqlite*"):
            path.rename(to / path.name)

    def say(self, *items: str, lift: bool = False) -> None:
        """Recall items, or take it back."""
        messages = [{"item_id": item, "action": "recall", "lift": lift} for item in items]
        status, told = self.front.ask("POST", "/v1/safety", {"messages": messages})
        assert status == 200, told

    def post_items(self) -> None:
        """Items are posted one by one, until `stop_posting`."""
        self._posting.clear()

        def post() -> None:
            for number in itertools.count():
                if self._posting.wait(0.03):
                    return
                item = {"item_id": f"posted-{number}", "category": "D > C3", "title": f"NEW {number}", "price": 2.5}
                status, told = self.front.ask("POST", "/v1/items", {"items": [item]})
                if status != 200:
                    self._refused.append(told)

        self._posted = threading.Thread(target=post)
        self._posted.start()

    def stop_posting(self) -> None:
        self._posting.set()
        self._posted.join()
        assert self._refused == []

    def kill_worker(self) -> None:
        os.kill(min(children(self.front)), signal.SIGKILL)

    def swap_bundle(self) -> None:
        """Another release, with the same items and models and no batch lists."""
        second = self.folder / "second"
        bundle = next(second.iterdir()) if second.exists() else write_tiny(second, user_lists=False)
        write_release(self.release, Release(str(bundle), str(self._options["front"].users)))

    def swap_back(self) -> None:
        write_release(self.release, Release(str(self.bundle), str(self._options["front"].users)))

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

    def states_that_differ(self) -> list[str]:
        """Users whose state is not what the log says, folded from its start by itself."""
        front = self._options["front"]
        table = StateTable.load(front.users) if front.users is not None else None
        log = SqliteLog(self.events)
        fresh = States(SqliteStore(self.folder / "folded again", 1, log="again"), table, Learning())
        stored = States(open_store(front.state_url, 2000, log_name(front.events_url)), table, Learning())
        for states in (fresh, stored):
            consumer = Consumer(log, lambda states=states: states)  # type: ignore[misc]
            while consumer.advance():
                pass
        users = {event.user_id for _, event in read_log(self.events)}
        found = [user for user in sorted(users) if not stored.read(user).same_as(fresh.read(user))]
        for states in (fresh, stored):
            states.store.close()
        log.close()
        return found


def waited_ms(pid: int) -> float:
    """Milliseconds so far that threads of a process were ready to run and were not let; 0 of one that has ended."""
    waited = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            waited += int(task.read_text().split()[1])
    return waited / 1e6


def stolen_ms() -> float:
    """Milliseconds so far in which the machine's cores were given to other guests of its host."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) * 1e3 / os.sysconf("SC_CLK_TCK")


def acknowledged_once(folder: Path) -> Iterator[str]:
    """Ids in the event log, in its order."""
    return (event.event_id for _, event in read_log(folder))
