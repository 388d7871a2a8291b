"""Replay sends what happened, in order, when it is due."""

import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.schema import EVENTS
from pipelines.replay import BATCH, BadReplay, due, paced, post, replay, wire

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(second: float) -> dict[str, object]:
    return {"event_id": f"e{second:g}", "timestamp": START + timedelta(seconds=second)}


def test_ten_times_as_fast_puts_events_ten_seconds_apart_into_neighbouring_seconds() -> None:
    batches = list(due([at(0), at(4), at(10), at(25)], speed=10))
    assert [(second, [event["event_id"] for event in batch]) for second, batch in batches] == [
        (0.0, ["e0", "e4"]),
        (1.0, ["e10"]),
        (2.5, ["e25"]),
    ]


def test_at_speed_zero_all_are_due_at_once_in_full_batches() -> None:
    batches = list(due([at(second) for second in range(2 * BATCH + 1)], speed=0))
    assert [(second, len(batch)) for second, batch in batches] == [(0.0, BATCH), (0.0, BATCH), (0.0, 1)]


def test_a_batch_waits_until_it_is_due_and_a_late_one_does_not_wait() -> None:
    clock = iter([100.0, 100.0, 100.5, 103.0])  # started, then the time when each batch is looked at
    slept: list[float] = []
    assert [len(batch) for batch in paced([(0.0, [at(0)]), (2.0, [at(2)]), (2.5, [at(3)])], slept.append, lambda: next(clock))] == [1, 1, 1]
    assert slept == [1.5]


def test_a_row_goes_on_the_wire_without_what_is_not_known() -> None:
    row = dict.fromkeys(EVENTS.names) | at(1) | {"value": 2.0, "context_store": "31"}
    assert wire(row) == {"event_id": "e1", "timestamp": START + timedelta(seconds=1), "value": 2.0, "context": {"store": "31"}}


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict]]]:
    """A server that takes every event but the first, and what it was sent."""
    got: list[dict] = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.extend(json.loads(self.rfile.read(int(self.headers["content-length"])))["events"])
            body = b'{"accepted": 1, "duplicates": 0, "refused": [{"index": 0}]}'
            self.send_response(200 if self.path == "/v1/events" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Api) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", got
        listening.shutdown()
        thread.join()


def test_the_rows_from_the_given_moment_on_are_sent_in_order(server: tuple[str, list[dict]], tmp_path: Path, capsys) -> None:
    url, got = server
    times = [START + timedelta(days=day) for day in (2, 0, 1)]
    columns = {name: pa.nulls(3, pa.string()) for name in EVENTS.names}
    columns |= {"event_id": ["c", "a", "b"], "user_id": ["u"] * 3, "timestamp": pa.array(times, pa.timestamp("us", "UTC"))}
    (tmp_path / "steps/validate/key/out").mkdir(parents=True)
    pq.write_table(pa.table(columns), tmp_path / "steps/validate/key/out/events.parquet")
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted/shop.json").write_text(json.dumps({"tables": "", "accepted": "steps/validate/key/out"}))
    total = replay("shop", "2024-01-02", "", 0, url, tmp_path)
    assert [event["event_id"] for event in got] == ["b", "c"]
    assert got[0]["timestamp"] == "2024-01-02T00:00:00+00:00"
    assert (total.sent, total.accepted, total.refused) == (2, 1, 1)
    assert "2 events sent: 1 accepted, 0 known before, 1 refused" in capsys.readouterr().out
    with pytest.raises(BadReplay, match="choose an earlier --from"):
        replay("shop", "2025-01-01", "", 0, url, tmp_path)


def test_a_server_that_is_not_there_or_says_no_ends_in_a_sentence(server: tuple[str, list[dict]]) -> None:
    url, _ = server
    with pytest.raises(BadReplay, match="/elsewhere/v1/events answered 404"):
        post([], f"{url}/elsewhere")
    with pytest.raises(BadReplay, match="start one with `shortlist serve`"):
        post([], "http://127.0.0.1:9")
