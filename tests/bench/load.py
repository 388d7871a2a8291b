"""Open-loop load: requests leave at a constant rate whatever the answers do, and latency counts from the intended moment.

A closed loop waits for a slow answer before it asks again and so hides the queue it would have met (coordinated omission, Tene 2013).
"""

import asyncio
import http.client
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Load:
    """What one run saw. Latencies in milliseconds, from the intended send time, one an answered request."""

    rate: float  # requests a second offered
    sent: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    unanswered: int = 0
    wall_s: float = 0.0
    bodies: list[bytes] = field(default_factory=list)  # the last few answers

    def percentile(self, p: float) -> float:
        return float(np.percentile(self.latencies_ms, p)) if self.latencies_ms else float("nan")

    @property
    def answered_per_second(self) -> float:
        return len(self.latencies_ms) / self.wall_s if self.wall_s else 0.0


class _Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection that answers one request at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.waiting: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, raw: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(raw)  # type: ignore[attr-defined]
        return self.waiting

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self.buffer[:head_end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < head_end + 4 + length or self.waiting is None:
            return
        body = bytes(self.buffer[head_end + 4 : head_end + 4 + length])
        del self.buffer[: head_end + 4 + length]
        waiting, self.waiting = self.waiting, None
        if not waiting.done():
            waiting.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(error or ConnectionResetError("the server closed the connection"))


def http_request(path: str, body: bytes, host: str = "127.0.0.1") -> bytes:
    """The bytes of one JSON POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _run(host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int, timeout_s: float) -> Load:
    loop = asyncio.get_running_loop()
    load = Load(rate)
    idle: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(connections):
        _, connection = await loop.create_connection(_Connection, host, port)
        idle.put_nowait(connection)

    async def one(raw: bytes, intended: float) -> None:
        connection = await idle.get()
        try:
            status, body = await asyncio.wait_for(connection.ask(raw), timeout_s)
        except (TimeoutError, OSError):
            load.unanswered += 1
            _, connection = await loop.create_connection(_Connection, host, port)
        else:
            load.latencies_ms.append((loop.time() - intended) * 1000)
            load.statuses[status] = load.statuses.get(status, 0) + 1
            load.bodies = [*load.bodies[-4:], body]
        finally:
            idle.put_nowait(connection)

    begin = loop.time()
    count = round(rate * seconds)
    tasks = set()
    for index in range(count):
        intended = begin + index / rate
        delay = intended - loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.ensure_future(one(requests[index % len(requests)], intended))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        load.sent += 1
    if tasks:
        await asyncio.wait(set(tasks))
    load.wall_s = loop.time() - begin
    while not idle.empty():
        idle.get_nowait().transport.close()
    return load


def run_load(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 32,
    timeout_s: float = 5.0,
    host: str = "127.0.0.1",
) -> Load:
    """Send `rate` x `seconds` requests to a server on loopback, round robin, and wait for every answer."""
    import uvloop

    return uvloop.run(_run(host, port, requests, rate, seconds, connections, timeout_s))


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system CPU seconds the processes have used so far (/proc/<pid>/stat fields 14 and 15)."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / ticks


def shared_rss_mb(pids: Sequence[int]) -> float:
    """Proportional set size of the processes in MB: pages several workers map count once (/proc/<pid>/smaps_rollup)."""
    total_kb = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total_kb += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total_kb / 1024


def wait_ready(port: int, path: str = "/readyz", timeout_s: float = 60.0, host: str = "127.0.0.1") -> float:
    """Seconds until GET `path` answers 200. Raises TimeoutError when it does not in time."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < timeout_s:
        if _answers(host, port, path):
            return time.perf_counter() - begin
        time.sleep(0.02)
    raise TimeoutError(f"port {port} did not answer 200 on {path} within {timeout_s} s: read the server's log")


def settle(pids: Sequence[int], timeout_s: float = 60.0) -> None:
    """Wait until the processes are idle: what a server still does behind its open door is its start, not a request's cost."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < timeout_s:
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
