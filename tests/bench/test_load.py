"""The load generator: a stall is charged to everybody who had to wait for it, and the client's own lateness is small and told."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.bench.load import cpu_seconds, http_request, run_load

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STALL_SECONDS = 0.3


class Server:
    """Answers one request after the other, over all connections; request number `stalls_at` takes `STALL_SECONDS`, `drops` gets none."""

    def __init__(self, stalls_at: int = -1, drops: int = -1) -> None:
        self._stalls_at, self._drops, self._count = stalls_at, drops, 0
        self._turn = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(65_536):
                with self._turn:
                    number, self._count = self._count, self._count + 1
                    if number == self._stalls_at:
                        time.sleep(STALL_SECONDS)  # the fault that is measured
                if number == self._drops:
                    return
                connection.sendall(ANSWER)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def stalling() -> Iterator[Server]:
    server = Server(stalls_at=10)
    yield server
    server.close()


@pytest.fixture
def dropping() -> Iterator[Server]:
    server = Server(drops=3)
    yield server
    server.close()


def test_everybody_who_came_during_a_stall_waited_for_its_end(stalling: Server) -> None:
    load = run_load(stalling.port, [http_request("/", b"{}")], rate=100, seconds=0.6, keep=60)
    assert load.statuses == {200: 60}
    waited = {reply.index: reply.latency_ms for reply in load.replies}
    for late in range(5, 25):  # requests 10 ms apart, each waits for what is left of the stall
        assert waited[10 + late] >= 1000 * STALL_SECONDS - 10 * late - 15
    assert sum(one > 50 for one in waited.values()) >= 20  # a closed loop would have seen one


def test_requests_leave_when_they_should_and_an_answer_that_never_comes_is_counted(dropping: Server) -> None:
    load = run_load(dropping.port, [http_request("/", b"{}")], rate=200, seconds=0.5)
    assert (load.sent, load.unanswered, load.statuses) == (100, 1, {200: 99})
    assert sorted(load.late_ms)[len(load.late_ms) // 2] < 2  # half of them within two milliseconds, on a busy machine too
    assert load.client_cpu_s < 0.2


def test_cpu_is_counted_finer_than_a_tick_and_with_the_threads_that_ended() -> None:
    import os

    def work() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.02:
            pass

    before = cpu_seconds([os.getpid()])
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert 0.02 <= cpu_seconds([os.getpid()]) - before < 0.2
