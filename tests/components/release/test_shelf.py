"""Bundles on a shelf: put once, proven there and wherever they are fetched; and the release file a recommender follows."""

import json
from pathlib import Path

import pytest
from pyarrow import fs

from components.release.releases import ReleasedBundle
from components.release.rollout import Refused, Unreachable
from components.release.rollout_follow import Follower
from components.release.rollout_state import BundleRef, Placed
from components.release.shelf import Shelf, s3
from serving.bundle.bundle import verify
from serving.worker.release import read_release
from tests.components.release.made import TINY, Made
from tests.components.release.test_rollout import Shelfless
from tests.serving.object_store import object_store

Two = tuple[Made, Made]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "store").mkdir()
    return Shelf(fs.SubTreeFileSystem(str(tmp_path / "store"), fs.LocalFileSystem()), TINY)


def put(shelf: Shelf, made: Made) -> None:
    shelf.put(ReleasedBundle(made.bundle, made.users), made.digest)


def test_what_is_put_is_fetched_elsewhere_and_putting_it_again_changes_nothing(shelf: Shelf, two: Two, tmp_path: Path) -> None:
    put(shelf, two[0])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    put(shelf, two[0])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == kept
    assert (tmp_path / "store" / "models" / "tiny" / two[0].digest / "bundle.json").is_file()
    found = shelf.fetch(two[0].digest, tmp_path / "home")
    assert verify(found.bundle) == f"sha256:{two[0].digest}"
    assert sorted(path.name for path in found.users.iterdir()) == sorted(path.name for path in two[0].users.iterdir())


def test_on_s3_what_is_put_is_fetched_and_a_forgery_is_refused(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store("models") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        shelf = Shelf(s3(), TINY)
        for _ in range(2):
            put(shelf, two[0])
        assert verify(shelf.fetch(two[0].digest, tmp_path / "home").bundle) == f"sha256:{two[0].digest}"
        with shelf.store.open_output_stream(f"models/tiny/{two[0].digest}/light.onnx") as file:
            file.write(b"forged")
        with pytest.raises(Refused, match=r"light\.onnx"):
            put(shelf, two[0])
        with pytest.raises(Refused, match=r"light\.onnx"):
            shelf.fetch(two[0].digest, tmp_path / "another")
        with pytest.raises(Unreachable, match=f"models/tiny/{two[1].digest} cannot be reached"):
            shelf.fetch(two[1].digest, tmp_path / "another")
    with pytest.raises(Unreachable, match="cannot be reached"):
        shelf.fetch(two[0].digest, tmp_path / "another")


@pytest.mark.parametrize("same_size", [True, False])
def test_what_is_there_is_never_written_again_and_a_forgery_is_refused(shelf: Shelf, two: Two, tmp_path: Path, same_size: bool) -> None:
    put(shelf, two[0])
    file = tmp_path / "store" / "models" / "tiny" / two[0].digest / "light.onnx"
    forged = b"x" * (file.stat().st_size if same_size else 7)
    file.write_bytes(forged)
    with pytest.raises(Refused, match=r"light\.onnx"):
        put(shelf, two[0])
    with pytest.raises(Refused, match=r"light\.onnx"):
        shelf.fetch(two[0].digest, tmp_path / "home")
    assert file.read_bytes() == forged
    assert not (tmp_path / "home" / "bundles").exists()


def test_another_bundle_under_the_name_of_one_is_refused(shelf: Shelf, two: Two, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"it is bundle sha256:{two[1].digest}"):
        shelf.put(ReleasedBundle(two[1].bundle, two[1].users), two[0].digest)


def test_a_store_without_the_bundle_is_asked_again(shelf: Shelf, two: Two, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        shelf.fetch(two[0].digest, tmp_path / "home")


def test_the_release_file_is_what_both_services_say(shelf: Shelf, two: Two, tmp_path: Path) -> None:
    for made in two:
        put(shelf, made)
    old, new = BundleRef(two[0].digest, "1", "r0"), BundleRef(two[1].digest, "2", "r1")
    world = Shelfless({role: Placed(old) for role in ("retrieval", "ranking")})
    follower = Follower(world, shelf, "tiny", "here", tmp_path / "into")

    def step(retrieval: Placed, ranking: Placed | None = None) -> tuple[str, str | None, float]:
        world.placed = {"retrieval": retrieval, "ranking": ranking or retrieval}
        follower.step()
        told = read_release(follower.file)
        return told.digest[7:], told.beside and told.beside.digest[7:], told.beside.percent if told.beside else 0.0

    assert step(Placed(old)) == (old.digest, None, 0.0)
    assert step(Placed(old, new, 0)) == (old.digest, new.digest, 0.0)
    assert step(Placed(old, new, 25), Placed(old, new, 5)) == (old.digest, new.digest, 0.0)  # not alike yet: nobody is moved
    assert step(Placed(old, new, 25)) == (old.digest, new.digest, 25.0)
    told = json.loads(follower.file.read_text())
    assert told["beside"]["salt"] == "r1"
    assert told["beside"]["ranking"] == f"tiny-ranking-b{new.digest[:12]}-predictor.here.svc:80"
    world.unready = frozenset({new.digest})
    assert step(Placed(old, new, 25)) == (old.digest, new.digest, 0.0)
    world.unready = frozenset()
    assert step(Placed(new, old, 0), Placed(old, new, 0)) == (old.digest, new.digest, 0.0)  # half-way: what was told last holds
    assert step(Placed(new, old, 0)) == (new.digest, old.digest, 0.0)
    assert step(Placed(new)) == (new.digest, None, 0.0)
    assert [path.name for path in (tmp_path / "into" / "bundles").iterdir()] == [new.digest]


def test_a_forged_bundle_beside_leaves_the_stable_one_to_all(shelf: Shelf, two: Two, tmp_path: Path) -> None:
    for made in two:
        put(shelf, made)
    (tmp_path / "store" / "models" / "tiny" / two[1].digest / "light.onnx").write_bytes(b"forged")
    old, new = BundleRef(two[0].digest, "1", "r0"), BundleRef(two[1].digest, "2", "r1")
    world = Shelfless({role: Placed(old, new, 25) for role in ("retrieval", "ranking")})
    follower = Follower(world, shelf, "tiny", "here", tmp_path / "into")
    assert "answers" in follower.step()
    assert read_release(follower.file).beside is None
