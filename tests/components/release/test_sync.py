"""The alias decides what answers, from a file or a server; whatever is wrong with the registry, what answered goes on."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from components.release import releases, sync
from components.release.fetch import NotFetched
from components.release.registry import ForeignVersion, RegistryUnavailable, open_registry
from components.release.sync import Reconciler, Synced, consult
from serving.bundle.bundle import verify
from tests.components.release.made import TINY, Made, looks_like
from tests.serving.servers import until

Two = tuple[Made, Made]


@pytest.fixture
def stocked(two: Two, home: Path, tmp_path: Path) -> Path:
    """A home whose registry has both bundles; the first is champion."""
    for made in two:
        made.register(tmp_path / "out", home)
    return home


def move(home: Path, version: str, alias: str = "champion", tracking: str = "") -> None:
    """What a person does in MLflow's page."""
    with open_registry(home, tracking) as client:
        client.set_registered_model_alias("shortlist-tiny", alias, version)


def file_says(home: Path) -> dict:
    return json.loads((home / "champion" / "tiny.json").read_text())


def test_the_alias_moved_and_moved_back_is_followed(stocked: Path, two: Two) -> None:
    first, second = two
    assert sync.sync(TINY, stocked).digest == first.digest
    move(stocked, "2")
    told = sync.sync(TINY, stocked)
    assert told.changed
    assert told.sentence.startswith(f"version 2 of shortlist-tiny answers from now on (bundle {second.digest[:12]})")
    assert file_says(stocked) == {
        "bundle": f"../bundles/{second.digest}",
        "users": f"../users/{second.digest}",
        "digest": f"sha256:{second.digest}",
    }
    assert verify(stocked / "champion" / file_says(stocked)["bundle"]) == f"sha256:{second.digest}"
    move(stocked, "1")
    assert sync.sync(TINY, stocked).digest == releases.chosen("tiny", stocked) == first.digest
    assert not sync.sync(TINY, stocked).changed


def test_another_machine_has_everything_from_the_server(two: Two, server: str, tmp_path: Path) -> None:
    """Registered over HTTP with a home and without one; a home that has seen neither answers from both."""
    first, second = two
    assert first.register(tmp_path / "out", tmp_path / "trainer", server)["aliases"] == ["challenger", "champion"]
    record = second.register(tmp_path / "out", "", server)
    assert (record["version"], record["aliases"]) == ("2", ["challenger"])
    assert second.register(tmp_path / "out", "", server) == record
    home = tmp_path / "elsewhere"
    told = sync.sync(TINY, home, server)
    assert (told.digest, told.changed) == (first.digest, True)
    assert releases.chosen("tiny", home) == first.digest
    move(home, "2", tracking=server)
    assert sync.sync(TINY, home, server).changed
    found = releases.place_of(second.digest, home)
    assert verify(found.bundle) == f"sha256:{second.digest}"
    assert sorted(path.name for path in found.users.iterdir()) == sorted(path.name for path in second.users.iterdir())
    with open_registry(None, server) as client:
        version = client.get_model_version("shortlist-tiny", "2")
    assert version.source == f"runs:/{version.run_id}/bundle"


def artifacts(home: Path, version: str) -> Path:
    with open_registry(home, "") as client:
        run = client.get_model_version("shortlist-tiny", version).run_id
    return home / "mlflow" / run / "artifacts"


@pytest.mark.parametrize(
    ("what", "message"), [("changed", "light.onnx was changed"), ("gone", "cannot be fetched"), ("users", "its content is not")]
)
def test_a_damaged_download_is_refused_and_what_answered_goes_on(stocked: Path, two: Two, what: str, message: str) -> None:
    first, second = two
    kept = artifacts(stocked, "2")
    shutil.rmtree(stocked / "bundles" / second.digest)
    shutil.rmtree(stocked / "users" / second.digest)
    if what == "changed":
        (kept / "bundle" / "light.onnx").write_bytes(b"something else")
    elif what == "gone":
        shutil.rmtree(kept)
    else:
        (kept / "users" / "counts.npy").write_bytes(b"something else")
    move(stocked, "2")
    with pytest.raises(NotFetched, match=message):
        sync.sync(TINY, stocked)
    assert releases.chosen("tiny", stocked) == first.digest
    assert [path.name for path in (stocked / "bundles").iterdir() if path.name.startswith(".")] == []


def test_a_damaged_cache_is_fetched_again(stocked: Path, two: Two) -> None:
    second = two[1]
    cached = stocked / "bundles" / second.digest / "light.onnx"
    cached.unlink()  # not in place: it is a hard link
    cached.write_bytes(b"something else")
    move(stocked, "2")
    assert sync.sync(TINY, stocked).digest == second.digest
    verify(stocked / "bundles" / second.digest)


def test_a_bundle_of_another_system_and_a_version_that_is_no_bundle_do_not_answer(stocked: Path, two: Two, tmp_path: Path) -> None:
    from dataclasses import replace

    other = replace(TINY, name="other")
    two[0].register(tmp_path / "out", tmp_path / "other", system=other)
    (tmp_path / "other" / "champion" / "other.json").unlink()
    with pytest.raises(NotFetched, match="it is a bundle of the system tiny, not of other"):
        sync.sync(other, tmp_path / "other")
    looks_like(tmp_path / "made", "f00", 0.4).register(tmp_path / "out", stocked)
    move(stocked, "3")
    shutil.rmtree(stocked / "bundles" / "f00")
    with pytest.raises(NotFetched, match="was downloaded and refused"):
        sync.sync(TINY, stocked)
    assert releases.chosen("tiny", stocked) == two[0].digest


def test_a_deleted_version_a_foreign_one_and_no_registry_are_sentences(stocked: Path, two: Two, tmp_path: Path) -> None:
    assert "nothing of tiny is registered under" in sync.sync(TINY, tmp_path / "nowhere").sentence
    with open_registry(stocked, "") as client:
        foreign = client.create_model_version("shortlist-tiny", source="s3://somewhere/else", tags={"bundle": "../../etc"})
    move(stocked, foreign.version)
    with pytest.raises(ForeignVersion, match=r"points at version 3, which names no bundle of ours \(tag bundle: '../../etc'\)"):
        sync.sync(TINY, stocked)
    with open_registry(stocked, "") as client:
        client.delete_model_version("shortlist-tiny", foreign.version)
    told = sync.sync(TINY, stocked)
    assert told == Synced(two[0].digest, False, told.sentence)
    assert told.sentence == f"shortlist-tiny has no champion: bundle {two[0].digest[:12]} answered; `shortlist promote` names one"


def test_a_server_that_is_down_is_said_once_and_what_answered_goes_on(stocked: Path, two: Two) -> None:
    with pytest.raises(RegistryUnavailable):
        sync.sync(TINY, stocked, "http://127.0.0.1:9")
    said: list[str] = []
    reconciler = Reconciler(TINY, stocked, "http://127.0.0.1:9")
    for _ in range(3):
        assert reconciler.step(said.append) is None
    assert len(said) == 1
    assert said[0].endswith(f"Bundle {two[0].digest[:12]} answered and goes on")


def test_the_watcher_follows_tells_and_leaves_alone_what_does_not_change(stocked: Path, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    stop = threading.Event()
    watcher = threading.Thread(target=Reconciler(TINY, stocked).watch, args=(0.05, stop, said.append))
    watcher.start()
    try:
        for version, made in (("2", two[1]), ("1", two[0])):
            move(stocked, version)
            until(lambda made=made: releases.chosen("tiny", stocked) == made.digest, 20)
    finally:
        stop.set()
        watcher.join(20)
    asked: list[str] = []
    quiet = Reconciler(TINY, stocked)
    quiet.step(asked.append)
    monkeypatch.setattr(sync, "sync", lambda *_: pytest.fail("asked a file that did not change"))
    quiet.step(asked.append)
    assert len(asked) == 1


def test_a_cache_that_cannot_be_written_is_said_and_what_answered_goes_on(stocked: Path, two: Two) -> None:
    for kind in ("bundles", "users"):
        shutil.rmtree(stocked / kind / two[1].digest)
    (stocked / "bundles").rename(stocked / "elsewhere")
    (stocked / "bundles").write_text("no folder")
    move(stocked, "2")
    said: list[str] = []
    reconciler = Reconciler(TINY, stocked)
    assert reconciler.step(said.append) is None
    assert consult(TINY, stocked) in said[0]
    assert file_says(stocked)["digest"] == f"sha256:{two[0].digest}"
    (stocked / "bundles").unlink()
    (stocked / "elsewhere").rename(stocked / "bundles")
    found = reconciler.step(said.append)
    assert found is not None
    assert found.digest == two[1].digest


def test_a_version_that_cannot_be_fetched_is_put_off_and_another_is_not(stocked: Path, two: Two) -> None:
    shutil.rmtree(artifacts(stocked, "2"))
    for kind in ("bundles", "users"):
        shutil.rmtree(stocked / kind / two[1].digest)
    move(stocked, "2")
    said: list[str] = []
    reconciler = Reconciler(TINY, stocked)
    for _ in range(3):
        reconciler.step(said.append)
    assert len(said) == 2  # three tries would say the same once, but the second and the third were none
    assert "cannot be fetched" in said[0]
    assert said[1].startswith("version 2 of shortlist-tiny cannot be fetched for now; ")
    move(stocked, "1")
    found = reconciler.step(said.append)
    assert found is not None
    assert found.digest == two[0].digest


def test_a_command_that_answers_once_asks_only_when_the_file_has_changed(stocked: Path, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    move(stocked, "2")
    assert consult(TINY, stocked) == ""
    assert releases.chosen("tiny", stocked) == two[1].digest
    assert consult(TINY, stocked) == ""  # the change we made ourselves
    monkeypatch.setattr(sync, "sync", lambda *_: pytest.fail("asked again"))
    assert consult(TINY, stocked) == ""
    monkeypatch.undo()
    (stocked / "mlflow.db").write_bytes(b"\x5a" * 4096)
    assert consult(TINY, stocked).endswith(f"Bundle {two[1].digest[:12]} answered and goes on")
