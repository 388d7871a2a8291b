"""Workers told to stop, one after another, under clients that keep their connections: each is handed over, and no request is lost."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.serving.asking import Asking, children
from tests.serving.servers import Running, following, until

CLIENTS = 8
STARTS_SECONDS = 1.5  # less than a worker takes to start


def rolled(server: Running, asking: Asking, times: int, each: int) -> None:
    """Tell a worker to stop as often, the one that is there longest, and let it be replaced; at least `each` requests in every turn."""
    told: set[int] = set()
    workers = len(children(server))
    for turn in range(times):
        oldest = min(children(server) - told)
        told.add(oldest)
        os.kill(oldest, signal.SIGTERM)
        until(lambda oldest=oldest: oldest not in children(server) and len(children(server)) == workers, 60)
        until(lambda turn=turn: sum(asking.seen.values()) >= (turn + 1) * each, 60)


def handed_over(folder: Path, workers: int, times: int, each: int) -> Asking:
    """What the clients saw over so many hand-overs of a server that is given no time to drain: the successor is the time."""
    with following(folder, workers=workers) as (server, _):
        until(lambda: len(children(server)) == workers, 30)
        with Asking(server.port, CLIENTS) as asking:
            until(lambda: asking.seen["200"] >= 2 * CLIENTS, 30)
            rolled(server, asking, times, each)
    return asking


def test_an_only_worker_told_to_stop_twice_loses_no_request_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    asking = handed_over(tmp_path, 1, 2, 200)
    assert asking.lost == Counter()
    assert asking.worst_seconds < STARTS_SECONDS


@pytest.mark.slow
def test_ten_thousand_requests_on_kept_connections_survive_twenty_hand_overs(tmp_path: Path) -> None:
    asking = handed_over(tmp_path, 2, 20, 500)
    print(f"20 SIGTERMs: {asking.seen.total()} requests on {CLIENTS} kept connections ({asking.connected} made), "
          f"{asking.lost.total()} lost {dict(asking.lost)}, worst {asking.worst_seconds * 1e3:.0f} ms")  # fmt: skip
    assert asking.seen["200"] >= 10_000
    assert asking.lost == Counter()
