"""Clients that go on asking a server while something happens to it."""

import http.client
import json
import threading
import time
from collections import Counter
from pathlib import Path

from tests.serving.servers import Running

_BODY = json.dumps({"user_id": "u01", "k": 3})


def children(server: Running) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()}


class Asking:
    """Clients that keep their connections until told `connection: close` and ask without end; what they saw, by status or error."""

    def __init__(self, port: int, clients: int, pause_seconds: float = 0.01) -> None:
        self.seen: Counter[str] = Counter()
        self.connected = 0  # connections made
        self.worst_seconds = 0.0  # of one request, its connection included
        self._port, self._pause, self._stop = port, pause_seconds, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def lost(self) -> Counter[str]:
        return Counter({what: number for what, number in self.seen.items() if what != "200"})

    def _ask(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
                    self.connected += 1
                connection.request("POST", "/v1/recommendations", _BODY, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.worst_seconds = max(self.worst_seconds, time.monotonic() - began)
                self.seen[str(answer.status)] += 1
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.seen[repr(error)] += 1
                connection = None
            self._stop.wait(self._pause)
        if connection is not None:
            connection.close()
