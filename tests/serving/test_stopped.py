"""Each dependency stopped in turn, while lists and `/healthz` are asked: nobody waits for what does not answer.

Redis is stopped (SIGSTOP), the resolver and the disk stall by a library compiled here, the disk is full by a limit on files' size, the log
is removed, the collector of traces takes and never answers. Lists by the server's own clock, and what clients see of lists and `/healthz`,
have to be in the budget; a thread of this process that only waits tells how late the machine lets anybody run.
"""

import hashlib
import http.client
import json
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.serving import tiny_bundle
from tests.serving.servers import Running, free_port, running, tiny_options, until

SHIM = Path(__file__).parent / "stalls.c"
BUDGET_MS = float(tiny_bundle.system().budget.total_ms)
SECONDS, LONGEST = 1.5, 1.0  # each stop lasts; a client waits for an acknowledgement
POSTS = 8  # at a time, of clients that do not know that the store is away
KEY = {"x-api-key": "k", "content-type": "application/json"}
pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="what stalls is a library compiled here: install gcc"),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed: apt-get install redis-server"),
]


class Stand:
    """A server and what it depends on, each of which can be stopped."""

    def __init__(self, folder: Path, stack: ExitStack, *, states: str) -> None:
        self.folder, self.events, self.count = folder, folder / "events", 0
        library = folder / "stalls.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
        self.port = free_port()
        self.redis = self._redis(stack)
        collector = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # takes connections, and says nothing
        sha = hashlib.sha256(b"k").hexdigest()
        scopes = ["recommend", "events", "items", "safety", "why"]
        keys = {"keys": [{"name": "web", "sha256": sha, "scopes": scopes, "rate": "100000/minute"}], "storage": self._url("127.0.0.1")}
        (folder / "keys.json").write_text(json.dumps(keys))
        options = tiny_options(
            folder, keys=folder / "keys.json", state=self._url("states.stall") if states == "redis" else "",
            traces=f"http://127.0.0.1:{collector.getsockname()[1]}/v1/traces",
        )  # fmt: skip
        self.names, self.disk = folder / "names stall", folder / "disk stalls"
        environment = {"LD_PRELOAD": str(library), "STALL_NAMES": str(self.names), "STALL_DISK": str(self.disk)}
        self.server: Running = stack.enter_context(running(options, environment=environment))
        for number in range(20):  # code and caches are there
            self.server.ask("POST", "/v1/recommendations", {"user_id": f"u{number:02}"}, KEY)

    def _url(self, host: str) -> str:
        return f"redis://{host}:{self.port}/0"

    def _redis(self, stack: ExitStack) -> subprocess.Popen[bytes]:
        line = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)

        def end() -> None:
            process.kill()
            process.wait(10)

        stack.callback(end)
        ping = ["redis-cli", "-p", str(self.port), "ping"]
        until(lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n", 20)
        return process

    def limit_files(self, full: bool) -> None:
        hard = resource.RLIM_INFINITY
        resource.prlimit(self.server.process.pid, resource.RLIMIT_FSIZE, (1 if full else hard, hard))

    def click(self) -> tuple[int, Any, float]:
        """Status, reply and seconds of one event."""
        self.count += 1
        event = {
            "event_id": f"e{self.count}", "event_type": "click", "user_id": f"u{self.count % 40:02}", "item_id": "i100",
            "timestamp": "2024-10-04T12:00:00Z",
        }  # fmt: skip
        began = time.monotonic()
        status, told = self.server.ask("POST", "/v1/events", event, KEY)
        return status, told, time.monotonic() - began

    def post(self, item: str) -> None:
        """An item, of which is not heard in time where the store is away."""
        with suppress(OSError):
            self.server.ask("POST", "/v1/items", {"items": [{"item_id": item, "category": "D > C3", "title": item, "price": 2.5}]}, KEY)

    def metric(self, name: str) -> float:
        text = self.server.ask("GET", "/metrics")[1].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


class Watch:
    """Two clients on kept connections: one asks for lists of different users, the other for the server's health; and who only waits."""

    def __init__(self, server: Running, seconds: float) -> None:
        self.lists: list[tuple[float, Any]] = []
        self.probes: list[float] = []
        self.late: list[float] = []  # seconds after its time that a thread was let run
        self._port, self._ends = server.port, time.monotonic() + seconds
        self._threads = [threading.Thread(target=work) for work in (self._list, self._probe, self._wait)]
        for thread in self._threads:
            thread.start()

    def join(self) -> "Watch":
        for thread in self._threads:
            thread.join()
        return self

    def _list(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        number = 0
        while time.monotonic() < self._ends:
            began, number = time.monotonic(), number + 1
            connection.request("POST", "/v1/recommendations", json.dumps({"user_id": f"u{number % 40:02}"}), KEY)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            self.lists.append((time.monotonic() - began, body if answer.status == 200 else {"items": [], "took_ms": 1e9, "said": body}))
        connection.close()

    def _probe(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while time.monotonic() < self._ends:
            began = time.monotonic()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"alive"}'
            self.probes.append(time.monotonic() - began)
            threading.Event().wait(0.01)
        connection.close()

    def _wait(self) -> None:
        while time.monotonic() < self._ends:
            began = time.monotonic()
            threading.Event().wait(0.005)
            self.late.append(time.monotonic() - began - 0.005)


def check(stand: Stand, begin: Callable[[], Any], end: Callable[[], Any], acknowledges: bool = True) -> None:
    """Stop something for a while, then let it go on: all is as before."""
    usual = Watch(stand.server, SECONDS / 3).join()
    begin()
    try:
        watch = Watch(stand.server, SECONDS)
        status, told, seconds = stand.click()
        asked = time.monotonic()
        said = stand.server.ask("POST", "/v1/safety", {"messages": [{"item_id": "i009", "action": "recall"}]}, KEY)[0]
        heard = time.monotonic() - asked
        watch.join()
        after = stand.server.ask("POST", "/v1/recommendations", {"user_id": "u01", "k": 240}, KEY)[1]
    finally:
        end()
    assert len(watch.lists) > 3
    assert len(watch.probes) > 3
    assert {len(answer["items"]) for _, answer in watch.lists} == {10}
    assert_prompt(watch, usual)
    assert (status, seconds < LONGEST) == (200 if acknowledges else 503, True), told
    assert (said, heard < LONGEST) == (200 if acknowledges else 503, True)
    assert not acknowledges or "i009" not in {item["item_id"] for item in after["items"]}
    until(lambda: stand.click()[0] == 200, 10)
    until(lambda: stand.server.ask("POST", "/v1/recommendations", {"user_id": "u01"}, KEY)[1]["degraded"] is None, 40)


def assert_prompt(watch: Watch, usual: Watch) -> None:
    """All in the budget but one at most, who finds out; as late as a thread was that had nothing to do but to wait, none is blamed."""
    allowed = BUDGET_MS / 1e3 + max(watch.late) + max(usual.late)
    took = [answer["took_ms"] / 1e3 for _, answer in watch.lists]
    for seconds in (took, [one for one, _ in watch.lists], watch.probes):
        assert sum(one > allowed for one in seconds) <= 1, (allowed, sorted(seconds)[-5:])
        assert median(seconds) < BUDGET_MS / 1e3


@pytest.fixture(scope="module", params=["redis", "sqlite"])
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(tmp_path_factory.mktemp("stand"), stack, states=request.param)


def test_a_redis_that_is_stopped_keeps_nobody_waiting_and_rates_are_counted_here(stand: Stand) -> None:
    before = stand.metric("shortlist_rates_counted_alone_total")
    check(stand, lambda: stand.redis.send_signal(signal.SIGSTOP), lambda: stand.redis.send_signal(signal.SIGCONT))
    assert stand.metric("shortlist_rates_counted_alone_total") > before + 3


def test_a_resolver_that_does_not_answer_keeps_nobody_waiting_however_many_post_items_meanwhile(stand: Stand) -> None:
    def begin() -> None:  # connections that are there need no name
        stand.names.touch()
        subprocess.run(["redis-cli", "-p", str(stand.port), "client", "kill", "type", "normal"], capture_output=True, check=True)
        for post in posts:
            post.start()

    posts = [threading.Thread(target=stand.post, args=(f"posted-{number}",)) for number in range(POSTS)]
    check(stand, begin, stand.names.unlink)
    for post in posts:
        post.join()


def test_a_disk_that_is_slow_keeps_nobody_waiting(stand: Stand) -> None:
    check(stand, stand.disk.touch, stand.disk.unlink)


def test_a_disk_that_is_full_refuses_events_and_nothing_else(stand: Stand) -> None:
    check(stand, lambda: stand.limit_files(True), lambda: stand.limit_files(False), acknowledges=False)


def test_a_log_that_was_removed_takes_no_events_until_it_is_back_and_lists_go_on(stand: Stand) -> None:
    files = [path for path in stand.events.iterdir() if path.name.startswith("events.sqlite")]

    def move(source: Path, to: Path) -> None:
        for path in files:
            (source / path.name).rename(to / path.name)

    usual = Watch(stand.server, SECONDS / 3).join()
    move(stand.events, stand.folder)
    try:
        watch = Watch(stand.server, SECONDS)
        status, told, _ = stand.click()
        watch.join()
    finally:
        move(stand.folder, stand.events)
    assert (status, told["error"]["code"], "removed under this server" in told["error"]["message"]) == (503, "log_unavailable", True)
    assert {len(answer["items"]) for _, answer in watch.lists} == {10}
    assert_prompt(watch, usual)
    assert stand.click()[0] == 200


def test_a_resolver_that_never_answers_holds_no_servers_end(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stand = Stand(tmp_path, stack, states="redis")
        stand.names.touch()
        subprocess.run(["redis-cli", "-p", str(stand.port), "client", "kill", "type", "normal"], capture_output=True, check=True)
        waits = threading.Thread(target=stand.post, args=("posted",))  # asks for the name
        waits.start()
        until(Path(f"{stand.names} asked").exists, 20)
        stand.server.process.terminate()
        assert stand.server.process.wait(60) == 0
        waits.join()
