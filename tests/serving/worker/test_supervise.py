"""A supervisor, its workers and the release file: nothing asked is lost while workers come and go, and a bad release changes nothing."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from serving.bundle.bundle import show
from serving.worker.release import BadRelease, Release, checked, read_release, write_release
from tests.serving.asking import Asking, children
from tests.serving.servers import Running, following, running, tiny_options, until
from tests.serving.tiny_bundle import write_tiny

ASK = {"user_id": "u01", "k": 3}


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
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


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
