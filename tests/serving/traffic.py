"""Requests at a fixed rate beside a test, whatever becomes of them: who answered what, and when."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from tests.serving.servers import Running

Answer = tuple[int, str, float]  # status, digest of the bundle that answered, when on the monotonic clock


@contextmanager
def traffic(server: Running, a_second: float, users: Sequence[str]) -> Iterator[list["Future[Answer]"]]:
    """Lists of the users in turn, until the block ends."""
    stop, sent = threading.Event(), list["Future[Answer]"]()

    def one(number: int) -> Answer:
        status, body = server.ask("POST", "/v1/recommendations", {"user_id": users[number % len(users)]})
        return status, body.get("bundle", "") if isinstance(body, dict) else "", time.monotonic()

    def send() -> None:
        began = time.monotonic()
        while not stop.wait(max(0.0, began + len(sent) / a_second - time.monotonic())):
            sent.append(pool.submit(one, len(sent)))

    with ThreadPoolExecutor(32) as pool:
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield sent
        finally:
            stop.set()
            sender.join()
