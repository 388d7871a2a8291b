"""`kill -9` with the store up, down and gone: what was acknowledged is in the states afterwards, once, counted against the log."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from serving.events.consumer import Consumer
from serving.events.inbox import log_name
from serving.events.sqlite import SqliteLog, read_log
from serving.state.states import States, open_store
from serving.system import Learning
from tests.serving.servers import Running, free_port, running, tiny_options, until

WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from serving.events.inbox import Inbox
from serving.events.sqlite import SqliteLog
from serving.messages import Event
from serving.state.states import States, open_store
from serving.system import Learning
folder, url, turn = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
async def work():
    box = Inbox(lambda: SqliteLog(folder), lambda: States(open_store(url, 10, "log"), None, Learning()))
    for number in range(1_000_000):
        name = f"{turn}-{number}"
        events = [Event(f"{name}-{n}", "purchase", f"u{n}", f"i{number % 50}", datetime(2024, 10, 4, tzinfo=UTC)) for n in range(3)]
        assert await box.take(events) == ["new"] * 3
        print(name, flush=True)
asyncio.run(work())
"""


class SqliteStates:
    """States in a file, which somebody else locks."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "states.sqlite"
        self.url = f"sqlite:{self.path}"
        open_store(self.url, 1000).position()

    @contextmanager
    def down(self, _: int) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=20)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            yield

    def close(self) -> None:
        """Nothing runs."""


class RedisStates:
    """States in a Redis that keeps nothing on disk, which hangs or is killed."""

    def __init__(self, _: Path) -> None:
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._start()

    def _start(self) -> None:
        line = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
        self._process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        ping = ["redis-cli", "-p", str(self._port), "ping"]
        until(lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n", 20)

    @contextmanager
    def down(self, turn: int) -> Iterator[None]:
        if turn % 4 == 1:
            self._process.send_signal(signal.SIGSTOP)
            yield
            self._process.send_signal(signal.SIGCONT)
        else:
            self.close()
            yield
            self._start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture(params=[SqliteStates, RedisStates])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStates | RedisStates]:
    if request.param is RedisStates and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    made = request.param(tmp_path)
    yield made
    made.close()


def counted(folder: Path, states: States) -> tuple[list[str], int]:
    """Ids in the log, and events in the states once all of it is folded; each user's are as many as the log has of them."""
    log = SqliteLog(folder)
    consumer = Consumer(log, lambda: states)
    while consumer.advance():
        pass
    log.close()
    kept = [one for _, one in read_log(folder)]
    by_user = Counter(one.user_id for one in kept)
    in_states = {user: float(states.read(user).counts.sum()) for user in by_user}
    states.store.close()
    assert in_states == by_user
    return [one.event_id for one in kept], int(sum(in_states.values()))


@pytest.mark.parametrize("turns", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_after_kills_of_a_writer_the_states_are_what_the_log_says(store: SqliteStates | RedisStates, tmp_path: Path, turns: int) -> None:
    acknowledged: list[str] = []
    for turn in range(turns):
        with store.down(turn) if turn % 2 else nullcontext():
            line = [sys.executable, "-c", WRITER, str(tmp_path), store.url, str(turn)]
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as writer:
                assert writer.stdout is not None
                for part in writer.stdout:
                    acknowledged.append(part.strip())
                    if len(acknowledged) % 7 == turn % 7 and len(acknowledged) > 7 * turn:
                        writer.kill()
    ids, folded = counted(tmp_path, States(open_store(store.url, 1000, "log"), None, Learning()))
    print(f"{turns} kills, {type(store).__name__}: {3 * len(acknowledged)} acknowledged, {len(ids)} in the log, {folded} in the states")
    assert len(acknowledged) >= turns
    assert {f"{name}-{n}" for name in acknowledged for n in range(3)} <= set(ids)
    assert len(set(ids)) == len(ids) == folded


class Buyers:
    """Clients that send purchases as fast as they are acknowledged."""

    def __init__(self, server: Running, turn: int) -> None:
        self.acknowledged: list[str] = []
        self._server, self._turn = server, turn
        self._threads = [threading.Thread(target=self._buy, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _buy(self, client: int) -> None:
        with suppress(OSError):  # killed
            for number in range(1_000_000):
                name = f"{self._turn}-{client}-{number}"
                batch = [
                    {"event_id": f"{name}-{n}", "event_type": "purchase", "user_id": f"buyer{n}", "item_id": f"i{number % 50:03}",
                     "timestamp": "2024-10-04T12:00:00Z"} for n in range(3)
                ]  # fmt: skip
                status, told = self._server.ask("POST", "/v1/events", json.dumps({"events": batch}).encode())
                if (status, told.get("accepted")) == (200, 3):
                    self.acknowledged += [one["event_id"] for one in batch]

    def join(self) -> list[str]:
        for thread in self._threads:
            thread.join()
        return self.acknowledged


@pytest.mark.slow
def test_after_twenty_kills_of_the_server_the_states_are_what_the_log_says(store: SqliteStates | RedisStates, tmp_path: Path) -> None:
    options = tiny_options(tmp_path, state=store.url)
    acknowledged: list[str] = []
    outage = ExitStack()
    for turn in range(20):
        with running(options) as server:
            buyers = Buyers(server, turn)
            try:
                until(lambda buyers=buyers: len(buyers.acknowledged) > 30, 60)
                outage.close()
                if turn % 2:
                    outage.enter_context(store.down(turn))
                reached = len(buyers.acknowledged) + 60 + turn % 7
                until(lambda buyers=buyers, reached=reached: len(buyers.acknowledged) > reached, 60)
                server.kill()
            finally:
                server.process.kill()
                acknowledged += buyers.join()
        if turn % 4 == 1:
            outage.close()  # else the next server starts without the store
    outage.close()
    states = States(open_store(store.url, 1000, log_name(options.events_url)), None, Learning())
    ids, folded = counted(tmp_path / "events", states)
    print(f"20 kills, {type(store).__name__}: {len(acknowledged)} acknowledged, {len(ids)} in the log, {folded} in the states")
    assert set(acknowledged) <= set(ids)
    assert len(set(ids)) == len(ids) == folded
