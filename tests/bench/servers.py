"""The servers that are measured, each in processes of its own pinned to one core, told apart by what they cost.

CPU is all processes' and threads' user and system time over the requests they answered; the client runs on another core. What a subject
spends without a request, over as long a time, is measured beside it and reported, not subtracted.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.worker.options import Options
from tests.bench.load import Load, cpu_seconds, http_request, run_load, settle, shared_rss_mb, wait_ready

SERVER_CORE = 0
EVENT_BATCH = 500  # events in one request
Touch = tuple[str, str, float]  # user, item, day


@dataclass(frozen=True)
class Subject:
    """What is measured: processes that together answer on one port."""

    name: str
    port: int
    pids: tuple[int, ...]
    ready_s: float  # from the start of the (last) process to its first ready answer
    request: Callable[[str], bytes]  # user id -> bytes of a request
    takes_events: bool = True


@dataclass(frozen=True)
class Cost:
    """What a run of requests cost. Milliseconds a request and megabytes."""

    cpu_ms: float
    idle_ms: float  # what the subject spends in as long a time without a request, over as many requests
    load: Load
    rss_mb: float
    whole: int  # answers of the full rung; all, where a build knows no other


class Engine:
    """`tests.bench.engine` in a process of its own on the server's core."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, what: dict[str, Any] | None) -> dict[str, Any]:
        """One line there (or none), one line back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if what is not None:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine's process ended with {self._process.wait()}: what it wrote is above")
        return dict(json.loads(line))

    def measure(self, users: Sequence[str], rate: float) -> dict[str, Any]:
        return self.tell({"users": list(users), "rate": rate})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def has_kernel_option() -> bool:
    """Whether a server can be told which kernel to use."""
    return any(field.name == "kernel" for field in fields(Options))


def cost(
    subject: Subject, users: Sequence[str], rate: float, idle: bool = True, apart: bool = True, connections: int = 32
) -> Cost:  # fmt: skip
    """Ask once for each user at a constant rate, as far as there is a connection. `apart`: the client keeps off the server's core.

    Raises `RuntimeError` when an answer was not 200: nothing is measured then.
    """
    seconds = len(users) / rate
    spent_idle = 0.0
    if idle:
        before = cpu_seconds(subject.pids)
        time.sleep(seconds)
        spent_idle = cpu_seconds(subject.pids) - before
    requests = [subject.request(user) for user in users]
    with _off_core(SERVER_CORE) if apart else ExitStack():
        before = cpu_seconds(subject.pids)
        load = run_load(subject.port, requests, rate=rate, seconds=seconds, timeout_s=60, keep=len(users), connections=connections)
        spent = cpu_seconds(subject.pids) - before
    answered = load.statuses.get(200, 0)
    if answered != len(users):
        told = load.replies[-1:]
        raise RuntimeError(f"{subject.name}: {answered} of {len(users)} requests answered 200 ({load.statuses}): {told!r}")
    return Cost(1000 * spent / answered, 1000 * spent_idle / answered, load, shared_rss_mb(subject.pids), whole_answers(load))


def whole_answers(load: Load) -> int:
    """How many kept answers were 200 and not from a lower rung."""
    return sum(reply.status == 200 and (b'"degraded":null' in reply.body or b'"degraded"' not in reply.body) for reply in load.replies)


def touch(subject: Subject, events: Sequence[Touch]) -> None:
    """Each user looks at an item, so that the online read finds a state and a session."""
    parts = [events[begin : begin + EVENT_BATCH] for begin in range(0, len(events), EVENT_BATCH)]
    bodies = [{"events": [_event(f"touch-{n}-{at}", *one) for at, one in enumerate(part)]} for n, part in enumerate(parts)]
    requests = [http_request("/v1/events", json.dumps(body).encode()) for body in bodies]
    for request in requests:
        load = run_load(subject.port, [request], rate=1, seconds=1, connections=1, timeout_s=30)
        if load.statuses.get(200, 0) != 1 or json.loads(load.replies[0].body)["refused"]:
            raise RuntimeError(f"{subject.name} did not take the events: {load.replies!r}")


@contextmanager
def ours(
    system: str, bundle: Path, users: Path, *, name: str = "ours, fused", kernel: str = "auto", cores: Sequence[int] = (SERVER_CORE,)
) -> Iterator[Subject]:
    """The fused server."""
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        arguments = [*_arguments(system, bundle, users, home, "fused"), *_kernel(kernel)]
        yield stack.enter_context(_server(name, arguments, cores, _ask))


@contextmanager
def split(system: str, bundle: Path, users: Path, *, name: str = "ours, split", cores: Sequence[int] = (SERVER_CORE,)) -> Iterator[Subject]:
    """Retrieval and ranking in servers of their own, the recommender in front of them; all of them counted."""
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        halves = {}
        for role in ("retrieval", "ranking"):
            arguments = ["-m", "serving", "--system", system, "--bundle", str(bundle), "--role", role]
            halves[role] = stack.enter_context(_server(role, arguments, cores, _ask))
        joined = [word for role, half in halves.items() for word in (f"--{role}", f"127.0.0.1:{half.port}")]
        arguments = _arguments(system, bundle, users, home, "recommender") + joined
        front = stack.enter_context(_server(name, arguments, cores, _ask))
        pids = (*front.pids, *(pid for half in halves.values() for pid in half.pids))
        yield Subject(name, front.port, pids, front.ready_s, _ask)


@contextmanager
def naive(system: str, bundle: Path, users: Path, whole: Path, *, cores: Sequence[int] = (SERVER_CORE,)) -> Iterator[Subject]:
    """faiss Flat, FP32 with repeated rows, KServe's default v1 predict."""
    arguments = ["-m", "tests.bench.naive", "--system", system, "--bundle", str(bundle), "--users", str(users), "--whole", str(whole)]
    with _server("naive", arguments, cores, _ask_naive, ready="/v2/health/ready", takes_events=False) as subject:
        yield subject


@contextmanager
def engine(system: str, bundle: Path, users: Path, *, kernel: str = "auto") -> Iterator[Engine]:
    """The engine without a server."""
    line = [
        sys.executable,
        "-m",
        "tests.bench.engine",
        "--system",
        system,
        "--bundle",
        str(bundle),
        "--users",
        str(users),
        "--kernel",
        kernel,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, env=environment, preexec_fn=lambda: _pin((SERVER_CORE,)), **pipes) as process:
        try:
            made = Engine(process)
            made.tell(None)
            yield made
        finally:
            process.terminate()


def _kernel(kernel: str) -> list[str]:
    return ["--kernel", kernel] if kernel != "auto" else []


def _arguments(system: str, bundle: Path, users: Path, home: str, role: str) -> list[str]:
    places = ["--bundle", str(bundle), "--users", str(users), "--events", f"dir:{home}"]
    return ["-m", "serving", "--system", system, *places, "--clock", "auto", "--role", role, "--log-level", "warning"]


@contextmanager
def _server(
    name: str,
    arguments: list[str],
    cores: Sequence[int],
    request: Callable[[str], bytes],
    ready: str = "/readyz",
    takes_events: bool = True,
) -> Iterator[Subject]:
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        line = [sys.executable, *arguments, "--port", str(port)]
        process = subprocess.Popen(line, env=environment, stdout=log, stderr=log, preexec_fn=lambda: _pin(cores))
        try:
            try:
                seconds = wait_ready(port, ready)
            except TimeoutError:
                log.seek(0)
                raise RuntimeError(f"{name} did not start: {log.read()[-2000:].decode(errors='replace')}") from None
            settle(_family(process.pid))
            yield Subject(name, port, _family(process.pid), seconds, request, takes_events)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pin(cores: Sequence[int]) -> None:
    os.sched_setaffinity(0, set(cores) & os.sched_getaffinity(0) or os.sched_getaffinity(0))


@contextmanager
def _off_core(core: int) -> Iterator[None]:
    """This process leaves the core to the server, where there is another."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - {core} or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _family(pid: int) -> tuple[int, ...]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (pid, *(one for child in children for one in _family(int(child))))


def _event(event_id: str, user: str, item: str, day: float) -> dict[str, str]:
    moment = datetime.fromtimestamp(day * 86_400, UTC).isoformat()
    return {"event_id": event_id, "event_type": "product_view", "user_id": user, "item_id": item, "timestamp": moment}


def _ask(user: str) -> bytes:
    return http_request("/v1/recommendations", json.dumps({"user_id": user, "k": 10}).encode())


def _ask_naive(user: str) -> bytes:
    return http_request("/v1/models/naive:predict", json.dumps({"instances": [{"user_id": user, "k": 10}]}).encode())
