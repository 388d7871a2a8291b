"""A supervisor, its workers and the release file: nothing asked is lost while workers come and go, and a bad release changes nothing."""

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.bundle.bundle import show
from serving.worker.release import BadRelease, Release, checked, read_release, write_release
from tests.serving.servers import Running, running, tiny_options, until
from tests.serving.tiny_bundle import write_tiny

ASK = {"user_id": "u01", "k": 3}


def children(server: Running) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()}


class Asking:
    """Clients on kept connections that ask without end; what they saw, by status or error."""

    def __init__(self, port: int, clients: int) -> None:
        self.seen: Counter[str] = Counter()
        self._port, self._stop = port, threading.Event()
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
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
                connection.request("POST", "/v1/recommendations", json.dumps(ASK), {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.seen[str(answer.status)] += 1
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.seen[repr(error)] += 1
                connection = None
            self._stop.wait(0.01)
        if connection is not None:
            connection.close()


@contextmanager
def following(folder: Path, **changes: int) -> Iterator[tuple[Running, Path]]:
    """A supervised server that follows a release file naming the tiny bundle."""
    options = tiny_options(folder, **changes)
    file = folder / "release.json"
    assert options.bundle is not None
    write_release(file, Release(str(options.bundle), str(options.users), show(options.bundle)["digest"]))
    with running(options, follow=file, bundle=None, users=None) as server:
        yield server, file


def answered_by(server: Running) -> str:
    return str(server.ask("POST", "/v1/recommendations", ASK)[1]["bundle"])


def test_another_release_is_answered_from_without_a_request_lost(tmp_path: Path) -> None:
    second = write_tiny(tmp_path / "second", user_lists=False)
    digest = show(second)["digest"]
    with following(tmp_path) as (server, file), Asking(server.port, 4) as asking:
        before = answered_by(server)
        assert before != digest
        write_release(file, Release(str(second), None, digest))
        until(lambda: answered_by(server) == digest, 60)
        until(lambda: len(children(server)) == 1, 30)
        seen = sum(asking.seen.values())
        until(lambda: sum(asking.seen.values()) > seen + 40, 30)
        text = server.ask("GET", "/metrics")[1].decode()
    assert asking.lost == Counter()
    info = [line for line in text.splitlines() if line.startswith("shortlist_bundle_info{")]
    assert [line.partition('digest="')[2].partition('"')[0] for line in info] == [digest]  # a worker that ended is not counted


def test_a_release_that_cannot_be_served_changes_nothing_and_is_said(tmp_path: Path) -> None:
    second = write_tiny(tmp_path / "second", user_lists=False)
    good = show(second)["digest"]
    (second / "light.onnx").chmod(0o644)
    kept = (second / "light.onnx").read_bytes()
    (second / "light.onnx").write_bytes(b"spoilt")
    with following(tmp_path) as (server, file):
        before = answered_by(server)
        for text in (b"{", json.dumps({"bundle": str(second), "digest": good}).encode()):
            file.write_bytes(text)
            until(lambda: "release_refused" in server.ask("GET", "/healthz")[1], 30)
        until(lambda: "light.onnx" in server.ask("GET", "/healthz")[1].get("release_refused", ""), 30)
        assert answered_by(server) == before
        until(lambda: b'shortlist_release_refused{bundle="' in server.ask("GET", "/metrics")[1], 5)
        assert any(
            line.startswith("shortlist_release_refused{") and line.endswith(" 1.0")
            for line in server.ask("GET", "/metrics")[1].decode().splitlines()
        )
        (second / "light.onnx").write_bytes(kept)
        write_release(file, Release(str(second), None, good))
        until(lambda: answered_by(server) == good, 60)
        until(lambda: server.ask("GET", "/healthz")[1] == {"status": "alive"}, 10)


def test_a_worker_told_to_stop_has_its_successor_first_and_loses_nothing(tmp_path: Path) -> None:
    with running(tiny_options(tmp_path, drain_seconds=12), follow=None, workers=2) as server:
        until(lambda: len(children(server)) == 2, 30)
        with Asking(server.port, 8) as asking:
            until(lambda: asking.seen["200"] > 50, 30)
            for _ in range(2):
                told = min(children(server))
                os.kill(told, signal.SIGTERM)
                until(lambda told=told: told not in children(server) and len(children(server)) == 2, 60)
            seen = asking.seen["200"]
            until(lambda: asking.seen["200"] > seen + 50, 30)
        assert asking.lost == Counter()


def test_workers_end_with_their_supervisor_however_it_ends(tmp_path: Path) -> None:
    with running(tiny_options(tmp_path), workers=2) as server:
        until(lambda: len(children(server)) == 2, 30)
        workers = children(server)
        server.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20)


def test_a_release_file_is_read_beside_itself_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    bundle = write_tiny(tmp_path / "bundles")
    file = tmp_path / "release.json"
    write_release(file, Release(f"bundles/{bundle.name}"))
    assert checked(read_release(file)) == Release(str(bundle), None, show(bundle)["digest"])
    for release, said in (
        (Release(str(bundle), None, "sha256:other"), "names sha256:other"),
        (Release(str(tmp_path / "nowhere")), "nowhere"),
        (Release(str(bundle), str(tmp_path / "gone")), "users"),
    ):
        with pytest.raises(BadRelease, match=said):
            checked(release)
    file.write_text('{"bundl": 1}')
    with pytest.raises(BadRelease, match=r"release\.json"):
        read_release(file)
