"""Servers under measurement: each in its own process, pinned to one core, told apart by what they cost.

CPU is the whole process tree's user and system time over the requests it answered; the client runs on the other core.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Load, cpu_seconds, http_request, run_load, settle, shared_rss_mb, wait_ready

SERVER_CORE = 0


@dataclass(frozen=True)
class Subject:
    """What is measured: processes that together answer on one port."""

    name: str
    port: int
    pids: tuple[int, ...]
    ready_s: float  # from the start of the (last) process to its first ready answer
    request: Callable[[str], bytes]  # user id -> bytes of a request


@dataclass(frozen=True)
class Cost:
    """What a run of requests cost. Milliseconds a request and megabytes."""

    cpu_ms: float
    load: Load
    rss_mb: float


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def cost(subject: Subject, users: Sequence[str], rate: float) -> Cost:
    """Ask once for each user at a constant rate. Raises `RuntimeError` when an answer was not 200: nothing is measured then."""
    before = cpu_seconds(subject.pids)
    load = run_load(subject.port, [subject.request(user) for user in users], rate=rate, seconds=len(users) / rate, timeout_s=20)
    spent = cpu_seconds(subject.pids) - before
    answered = load.statuses.get(200, 0)
    if answered != len(users):
        raise RuntimeError(f"{subject.name}: {answered} of {len(users)} requests answered 200 ({load.statuses}): {load.bodies[-1:]!r}")
    return Cost(1000 * spent / answered, load, shared_rss_mb(subject.pids))


@contextmanager
def ours(system: str, bundle: Path, users: Path, *, cores: Sequence[int] = (SERVER_CORE,), workers: int = 1) -> Iterator[Subject]:
    """The fused server."""
    with tempfile.TemporaryDirectory() as home:
        arguments = [*_arguments(system, bundle, users, home, "fused"), "--workers", str(workers)]
        with _server("ours, fused", arguments, cores, _ask) as subject:
            yield subject


@contextmanager
def split(system: str, bundle: Path, users: Path, *, cores: Sequence[int] = (SERVER_CORE,)) -> Iterator[Subject]:
    """Retrieval and ranking in servers of their own, the recommender in front of them; all of them counted."""
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        halves = {}
        for role in ("retrieval", "ranking"):
            arguments = ["-m", "serving", "--system", system, "--bundle", str(bundle), "--role", role]
            halves[role] = stack.enter_context(_server(role, arguments, cores, _ask))
        joined = [word for role, half in halves.items() for word in (f"--{role}", f"127.0.0.1:{half.port}")]
        arguments = _arguments(system, bundle, users, home, "recommender") + joined
        front = stack.enter_context(_server("ours, split", arguments, cores, _ask))
        pids = (*front.pids, *(pid for half in halves.values() for pid in half.pids))
        yield Subject("ours, split", front.port, pids, front.ready_s, _ask)


@contextmanager
def naive(system: str, bundle: Path, users: Path, whole: Path, *, cores: Sequence[int] = (SERVER_CORE,)) -> Iterator[Subject]:
    """faiss Flat, FP32 with repeated rows, KServe's default v1 predict."""
    arguments = ["-m", "tests.bench.naive", "--system", system, "--bundle", str(bundle), "--users", str(users), "--whole", str(whole)]
    with _server("naive", arguments, cores, _ask_naive, ready="/v2/health/ready") as subject:
        yield subject


def _arguments(system: str, bundle: Path, users: Path, home: str, role: str) -> list[str]:
    places = ["--bundle", str(bundle), "--users", str(users), "--events", f"dir:{home}"]
    return ["-m", "serving", "--system", system, *places, "--clock", "auto", "--role", role, "--log-level", "warning"]


@contextmanager
def _server(
    name: str, arguments: list[str], cores: Sequence[int], request: Callable[[str], bytes], ready: str = "/readyz"
) -> Iterator[Subject]:
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *arguments, "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, set(cores) & os.sched_getaffinity(0)),
        )
        try:
            try:
                seconds = wait_ready(port, ready)
            except TimeoutError:
                log.seek(0)
                raise RuntimeError(f"{name} did not start: {log.read()[-2000:].decode(errors='replace')}") from None
            settle(_family(process.pid))
            yield Subject(name, port, _family(process.pid), seconds, request)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _family(pid: int) -> tuple[int, ...]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (pid, *(one for child in children for one in _family(int(child))))


def _ask(user: str) -> bytes:
    return http_request("/v1/recommendations", json.dumps({"user_id": user, "k": 10}).encode())


def _ask_naive(user: str) -> bytes:
    return http_request("/v1/models/naive:predict", json.dumps({"instances": [{"user_id": user, "k": 10}]}).encode())
