"""A bundle is refused whenever anything in it is not what it was."""

import json
from pathlib import Path

import pytest

from serving.bundle.bundle import BadBundle, Bundle, diff, show, verify
from serving.recommender import Recommender
from serving.system import load_system
from tests.serving.tiny_bundle import system, write_tiny


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bundle"))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def rewrite(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Change bundle.json as somebody would who also corrects its digest."""
    from serving.bundle.bundle import _canonical, _digest_of

    manifest = json.loads((folder / "bundle.json").read_bytes())
    change(manifest)
    del manifest["digest"]
    (folder / "bundle.json").write_bytes(_canonical({**manifest, "digest": _digest_of(manifest)}))


def copy(packed: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(packed, to / "copy"))


def test_the_folder_is_named_by_the_digest_of_its_content(packed: Path) -> None:
    assert verify(packed) == f"sha256:{packed.name}"
    assert Bundle.load(packed).digest == f"sha256:{packed.name}"


def test_the_same_parts_give_the_same_folder_and_nothing_else_is_left_beside_it(packed: Path, tmp_path: Path) -> None:
    again = write_tiny(tmp_path)
    assert again.name == packed.name
    assert diff(again, packed) == []
    assert {path.name for path in tmp_path.iterdir()} == {again.name, "parts"}
    assert write_tiny(tmp_path) == again  # a second time into the same place


def test_a_write_that_was_killed_leaves_nothing_that_counts(packed: Path, tmp_path: Path) -> None:
    partial = tmp_path / f".{packed.name}.partial"
    (partial / "item_table").mkdir(parents=True)
    (partial / "item_table" / "stray.npy").write_bytes(b"half")
    written = write_tiny(tmp_path)
    assert verify(written) == f"sha256:{packed.name}"
    assert not partial.exists()


def test_one_flipped_bit_in_any_file_is_refused_by_name(packed: Path, tmp_path: Path) -> None:
    folder = copy(packed, tmp_path)
    for path in files_of(folder):
        content = path.read_bytes()
        at = len(content) // 2
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(BadBundle, match=path.name):
            Bundle.load(folder)
        path.write_bytes(content)
    Bundle.load(folder)


def test_a_missing_and_an_extra_file_are_refused_by_name(packed: Path, tmp_path: Path) -> None:
    folder = copy(packed, tmp_path)
    (folder / "sources" / "extra.npy").write_bytes(b"")
    with pytest.raises(BadBundle, match=r"sources/extra.npy is extra"):
        verify(folder)
    (folder / "sources" / "extra.npy").unlink()
    (folder / "light.onnx").unlink()
    with pytest.raises(BadBundle, match=r"light.onnx is missing"):
        verify(folder)


@pytest.mark.parametrize("side", ["user", "item", "request", "cross"])
def test_features_in_another_order_or_of_another_type_are_refused_by_name(packed: Path, tmp_path: Path, side: str) -> None:
    folder = copy(packed, tmp_path)
    names = [name for name, _ in show(folder)["schema"][side]]

    def swap(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["schema"][side][:2] = manifest["schema"][side][1::-1]

    rewrite(folder, swap)
    with pytest.raises(BadBundle, match=rf"the bundle has '({names[1]}|{names[0]})'"):
        Bundle.load(folder, verify=False)
    rewrite(folder, swap)

    def retype(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["schema"][side][0][1] = "float64"

    rewrite(folder, retype)
    with pytest.raises(BadBundle, match=rf"{names[0]}.*float64"):
        Bundle.load(folder, verify=False)


def test_a_feature_too_many_or_too_few_is_refused_by_name(packed: Path, tmp_path: Path) -> None:
    folder = copy(packed, tmp_path)
    rewrite(folder, lambda manifest: manifest["schema"]["cross"].append(["from_the_future", "float32"]))
    with pytest.raises(BadBundle, match=r"cross feature 'from_the_future': in the bundle, not in the code"):
        Bundle.load(folder)


def test_models_that_read_another_number_of_features_than_the_bundle_names_are_refused(packed: Path, tmp_path: Path) -> None:
    folder = copy(packed, tmp_path)

    def more(manifest: dict) -> None:  # type: ignore[type-arg]
        for side in ("user", "request"):
            manifest["schema"][side].append(["own_tier", "float32"])

    rewrite(folder, more)
    with pytest.raises(BadBundle, match=r"its models read \d+ request features, \d+ are named"):
        Recommender(Bundle.load(folder, verify=False), system())


def test_diff_names_what_differs(packed: Path, tmp_path: Path) -> None:
    folder = copy(packed, tmp_path)

    def change(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["metrics"] = {"recall": 0.4}
        manifest["files"]["light.onnx"] = "0" * 64

    rewrite(folder, change)
    assert diff(packed, folder) == ["metrics.recall: null against 0.4", "file light.onnx: differs"]


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"holds no bundle.json"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BadBundle, match="is not JSON"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text('{"format": 99}')
    with pytest.raises(BadBundle, match="expected format 3, got 99"):
        Bundle.load(tmp_path)


def test_a_bundle_answers_only_for_the_system_it_was_packed_for(packed: Path) -> None:
    assert Recommender(Bundle.load(packed), system()).system.name == "tiny"
    with pytest.raises(BadBundle, match="packed for system 'tiny', not 'shop'"):
        Recommender(Bundle.load(packed), load_system("shop"))


def test_mapped_arrays_cannot_be_written(packed: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Bundle.load(packed).catalogue.price[0] = 1
