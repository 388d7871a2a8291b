"""Open-loop load: requests leave at a constant rate whatever the answers do, and latency counts from the intended moment.

A closed loop waits for a slow answer before it asks again and so hides the queue it would have met (coordinated omission, Tene 2013).
The client is one loop over plain sockets, because it shares the machine with the server: `select` waits to the microsecond (an event loop's
timers step in milliseconds), and a request costs it some 50 us. What it was late by itself is in `Load.late_ms`.
"""

import ctypes
import gc
import http.client
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

_CHUNK = 1 << 16
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


@dataclass(frozen=True)
class Reply:
    """One request's fate."""

    index: int  # of the request
    intended_s: float  # since the run began
    latency_ms: float  # from the intended moment
    status: int  # 0: no answer
    body: bytes


@dataclass
class Load:
    """What one run saw. Latencies in milliseconds, from the intended send time, one an answered request."""

    rate: float  # requests a second offered
    sent: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)  # from the intended moment to the client's own `send`, where a connection was free
    statuses: dict[int, int] = field(default_factory=dict)
    unanswered: int = 0
    wall_s: float = 0.0
    client_cpu_s: float = 0.0
    replies: list[Reply] = field(default_factory=list)  # the last, or all where they were asked for

    def percentile(self, p: float) -> float:
        return float(np.percentile(self.latencies_ms, p)) if self.latencies_ms else float("nan")

    @property
    def answered_per_second(self) -> float:
        return len(self.latencies_ms) / self.wall_s if self.wall_s else 0.0


class _Connection:
    """One keep-alive HTTP/1.1 connection that answers one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.index, self.intended, self.due = 0, 0.0, 0.0
        self.ends = False  # the server said that this answer was the last

    def fileno(self) -> int:
        return self.socket.fileno()

    def received(self) -> tuple[int, bytes] | None:
        """Status and body once the answer is whole. Raises `OSError` when the connection is gone."""
        part = self.socket.recv(_CHUNK)
        if not part:
            raise ConnectionResetError("the server closed the connection")
        self.buffer = self.buffer + part if self.buffer else part
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = self.buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < head_end + 4 + length:
            return None
        self.ends = b"\r\nconnection: close" in head
        body, self.buffer = self.buffer[head_end + 4 : head_end + 4 + length], b""
        return int(head[9:12]), body


def http_request(path: str, body: bytes, host: str = "127.0.0.1") -> bytes:
    """The bytes of one JSON POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Run:
    """One run: what waits for a connection, what waits for its answer."""

    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], load: Load, connections: int, timeout_s: float, keep: int
    ) -> None:
        self.address, self.requests, self.load, self.timeout = address, requests, load, timeout_s
        self.idle: list[_Connection] = []  # opened as they are needed: a server closes one that sends nothing
        self.may_open = connections
        self.busy: dict[int, _Connection] = {}
        self.waiting: deque[tuple[int, float]] = deque()
        self.replies: deque[Reply] = deque(maxlen=keep)
        self.begin = perf_counter()

    def go(self, count: int) -> None:
        load, rate = self.load, self.load.rate
        while load.sent < count or self.busy or self.waiting:
            next_at = self.begin + load.sent / rate
            if load.sent < count and perf_counter() >= next_at:
                self.waiting.append((load.sent, next_at))
                load.sent += 1
            while self.waiting and (self.idle or self.may_open):
                self._send(*self.waiting.popleft())
            until = self.begin + load.sent / rate if load.sent < count else perf_counter() + 0.05
            ready, _, _ = select.select(self.busy.values(), (), (), max(until - perf_counter(), 0))
            for connection in ready:
                self._read(connection)
            if not ready:
                self._let_go()
        load.wall_s = perf_counter() - self.begin

    def _send(self, index: int, intended: float) -> None:
        connection = self.idle.pop() if self.idle else self._opened()
        connection.index, connection.intended, connection.due = index, intended, intended + self.timeout
        now = perf_counter()
        try:
            connection.socket.send(self.requests[index % len(self.requests)])  # smaller than the socket's buffer: whole or not at all
        except OSError:
            self._lost(connection)
            return
        self.load.late_ms.append((now - intended) * 1e3)
        self.busy[connection.fileno()] = connection

    def _read(self, connection: _Connection) -> None:
        at = connection.fileno()
        try:
            found = connection.received()
        except OSError:
            del self.busy[at]
            self._lost(connection)
            return
        if found is None:
            return
        latency = (perf_counter() - connection.intended) * 1e3
        del self.busy[at]
        if connection.ends:
            connection.socket.close()
            self.may_open += 1
        else:
            self.idle.append(connection)
        status, body = found
        self.load.latencies_ms.append(latency)
        self.load.statuses[status] = self.load.statuses.get(status, 0) + 1
        self.replies.append(Reply(connection.index, connection.intended - self.begin, latency, status, body))

    def _let_go(self) -> None:
        """Give up on requests that are past their time."""
        now = perf_counter()
        for connection in [one for one in self.busy.values() if now > one.due]:
            del self.busy[connection.fileno()]
            self._lost(connection)

    def _lost(self, connection: _Connection) -> None:
        """No answer came: count it, and replace the connection where the server still listens."""
        self.load.unanswered += 1
        intended = connection.intended
        self.replies.append(Reply(connection.index, intended - self.begin, (perf_counter() - intended) * 1e3, 0, b""))
        connection.socket.close()
        self.may_open += 1

    def _opened(self) -> _Connection:
        self.may_open -= 1
        return _Connection(self.address)

    def close(self) -> None:
        for connection in (*self.idle, *self.busy.values()):
            connection.socket.close()


def run_load(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 32,
    timeout_s: float = 5.0,
    host: str = "127.0.0.1",
    keep: int = 5,
) -> Load:
    """Send `rate` x `seconds` requests to a server on loopback, round robin, and wait for every answer; `keep` the last replies.

    Raises `OSError` when the server does not listen.
    """
    load = Load(rate)
    run = _Run((host, port), requests, load, connections, timeout_s, keep)
    try:
        with _precise():
            began, run.begin = time.thread_time(), perf_counter()
            run.go(round(rate * seconds))
            load.client_cpu_s = time.thread_time() - began
    finally:
        run.close()
    load.replies = list(run.replies)
    return load


@contextmanager
def _precise() -> Iterator[None]:
    """This thread is woken when it asked to be, not up to 50 us later, and no collection comes in between."""
    libc, collecting = ctypes.CDLL(None), gc.isenabled()
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    try:
        yield
    finally:
        libc.prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)  # the default again
        if collecting:
            gc.enable()


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system CPU seconds the processes have used so far, to the nanosecond, all their threads, ended ones too.

    The kernel's CPU clock of a process (`clock_getcpuclockid`): /proc/PID/stat counts in ticks of 10 ms.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def shared_rss_mb(pids: Sequence[int]) -> float:
    """Proportional set size of the processes in MB: pages several workers map count once (/proc/<pid>/smaps_rollup)."""
    total_kb = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total_kb += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total_kb / 1024


def wait_ready(port: int, path: str = "/readyz", timeout_s: float = 60.0, host: str = "127.0.0.1") -> float:
    """Seconds until GET `path` answers 200. Raises TimeoutError when it does not in time."""
    begin = perf_counter()
    while perf_counter() - begin < timeout_s:
        if _answers(host, port, path):
            return perf_counter() - begin
        time.sleep(0.02)
    raise TimeoutError(f"port {port} did not answer 200 on {path} within {timeout_s} s: read the server's log")


def settle(pids: Sequence[int], timeout_s: float = 60.0) -> None:
    """Wait until the processes are idle: what a server still does behind its open door is its start, not a request's cost."""
    begin = perf_counter()
    while perf_counter() - begin < timeout_s:
        before = cpu_seconds(pids)
        time.sleep(1.0)
        if cpu_seconds(pids) - before < 0.05:
            return
    raise TimeoutError(f"processes {list(pids)} were still busy after {timeout_s} s without a request: look at what they do")


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:  # not listening yet
        return False
    finally:
        connection.close()
