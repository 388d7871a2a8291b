"""What breaks, one by one: every answer is a full list in its time that says what it lacks, and the full rung comes back."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest

from serving.telemetry.traces import Traces
from serving.worker.assemble import Parts
from tests.serving.servers import in_process, tiny_options


class Relay:
    """A Redis that can be made slow or cut off: a TCP port in front of a socket."""

    def __init__(self, target: str) -> None:
        self.flowing, self._target = threading.Event(), target.removeprefix("unix://")
        self.flowing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source, sink:
            try:
                while data := source.recv(65_536):
                    self.flowing.wait(60)
                    sink.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self.flowing.set()
        self._listener.close()


@pytest.fixture
def relay(redis_url: str) -> Iterator[Relay]:
    made = Relay(redis_url)
    yield made
    made.close()


def end(parts: Parts) -> None:
    for close in parts.closers:
        close()


def client_of(parts: Parts) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(parts.app), base_url="http://door")


async def ask(client: httpx.AsyncClient, user: str = "u01") -> dict[str, Any]:
    reply = await client.post("/v1/recommendations", json={"user_id": user})
    assert reply.status_code == 200
    assert len(reply.json()["items"]) == 10
    return dict(reply.json())


async def whole_again(client: httpx.AsyncClient, item: str) -> None:
    """Ask until the full rung answers and knows the item; at most the ten seconds that a recovery may take."""
    began = perf_counter()
    while (answer := await ask(client))["degraded"] is not None or item not in {one["item_id"] for one in answer["items"]}:
        assert perf_counter() - began < 10, answer["degraded"]
        await asyncio.sleep(0.05)  # the breaker's pause and the writer's pass in real time


EVENT = {"event_id": "e1", "event_type": "purchase", "user_id": "u01", "item_id": "i100", "timestamp": "2024-10-04T12:00:00Z"}


async def test_with_a_redis_that_stalls_lists_go_on_in_time_and_the_full_one_comes_back(tmp_path: Path, relay: Relay) -> None:
    parts = in_process(tiny_options(tmp_path, state=relay.url))
    async with client_of(parts) as client:
        assert (await client.post("/v1/events", json=EVENT)).json()["accepted"] == 1
        await whole_again(client, "i100")
        relay.flowing.clear()
        for attempt in range(12):
            began = perf_counter()
            answer = await ask(client)
            assert "user state" in answer["degraded"]["reason"]
            assert attempt < 4 or perf_counter() - began < 1  # after a few the breaker no longer asks
        assert (await client.post("/v1/events", json=EVENT | {"event_id": "e2", "item_id": "i101"})).json()["accepted"] == 1
        relay.flowing.set()
        await whole_again(client, "i101")
    end(parts)


async def test_states_that_were_lost_are_made_again_from_the_event_log(tmp_path: Path) -> None:
    options = tiny_options(tmp_path, state=f"sqlite:{tmp_path / 'states' / 's.sqlite'}")
    parts = in_process(options)
    async with client_of(parts) as client:
        await client.post("/v1/events", json=EVENT)
        before = await ask(client)
    end(parts)
    shutil.rmtree(tmp_path / "states")
    parts = in_process(options)
    async with client_of(parts) as client:
        after = await ask(client)
    end(parts)
    assert [item["item_id"] for item in after["items"]] == [item["item_id"] for item in before["items"]]


async def test_a_damaged_state_database_costs_the_events_since_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "states.sqlite").write_bytes(b"not a database, but long enough to look like one" * 100)
    parts = in_process(tiny_options(tmp_path, state=f"sqlite:{tmp_path / 'states.sqlite'}"))
    async with client_of(parts) as client:
        assert "user state" in (await ask(client))["degraded"]["reason"]
    end(parts)


async def test_an_event_log_that_cannot_be_read_at_the_start_keeps_no_server_from_answering(tmp_path: Path) -> None:
    options = tiny_options(tmp_path)
    (tmp_path / "events").mkdir()
    for damage in (b"", b"not a database, but long enough to look like one" * 100):
        (tmp_path / "events" / "events.sqlite").write_bytes(damage)
        parts = in_process(options)
        async with client_of(parts) as client:
            assert (await ask(client))["degraded"] is None
        end(parts)


async def test_an_exposure_log_that_cannot_be_written_delays_no_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = in_process(tiny_options(tmp_path, exposures=tmp_path / "file"))
    async with client_of(parts) as client:
        answer = await ask(client)
        assert answer["degraded"] is None
        assert (await client.get(f"/v1/why/{answer['request_id']}")).status_code == 404
    end(parts)


async def test_a_wall_clock_that_jumps_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = in_process(tiny_options(tmp_path))
    async with client_of(parts) as client:
        before = await ask(client)
        monkeypatch.setattr("time.time", lambda: 0.0)
        after = await ask(client)
    end(parts)
    assert [item["item_id"] for item in after["items"]] == [item["item_id"] for item in before["items"]]


async def test_a_user_nobody_knows_gets_a_full_list(tmp_path: Path) -> None:
    parts = in_process(replace(tiny_options(tmp_path), users=None))
    async with client_of(parts) as client:
        lists = [(await ask(client, user))["items"] for user in ("u01", "nobody", "ü" * 200)]
    assert [len({item["item_id"] for item in items}) for items in lists] == [10, 10, 10]
    end(parts)


async def test_traces_reach_a_collector_and_carry_on_the_callers(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    got: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    traces = Traces(f"http://127.0.0.1:{server.server_port}/v1/traces", "shortlist-tiny")
    caller = "0af7651916cd43dd8448eb211c80319c"
    with traces.span("recommend", [(b"traceparent", f"00-{caller}-b7ad6b7169203331-01".encode())]):
        pass
    await asyncio.to_thread(traces.close)
    server.shutdown()
    thread.join(5)
    server.server_close()
    assert any(bytes.fromhex(caller) in body and b"recommend" in body for body in got)
