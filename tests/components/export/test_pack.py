"""From the folders of the steps before to one bundle that answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.export.pack import NothingToPack, fallback, pack
from serving.bundle.bundle import BadBundle, Bundle, show
from serving.query import Request
from serving.recommender import Recommender
from serving.state.user_state import UserState
from tests.serving.tiny_bundle import DAY, ITEMS, catalogue, states, system, write_tiny

MODELS = ("request.onnx", "request", "item.onnx", "light.onnx", "heavy.onnx", "halves")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """features/, retrieval/ and export/ as the steps leave them, with an older cut that must not be packed."""
    home = tmp_path_factory.mktemp("steps")
    parts = write_tiny(home / "made").parent / "parts"
    for cut in ("2024-09-27", "2024-10-04"):
        catalogue().save(home / "features" / "cuts" / cut / "item_table")
        states().save(home / "features" / "cuts" / cut / "users")
    shutil.copytree(parts / "sources", home / "retrieval" / "cuts" / "2024-10-04" / "sources")
    (home / "retrieval" / "retrieval.json").write_text('{"linear": {"recall": 0.5}}')  # of the week after the cut: not in the bundle
    for name in MODELS:
        copy = shutil.copytree if (parts / name).is_dir() else shutil.copyfile
        (home / "export").mkdir(exist_ok=True)
        copy(parts / name, home / "export" / name)
    (home / "export" / "parity.json").write_text('{"light": {"drift": NaN, "overlap": 0.5}}')
    return home


def packed(steps: Path, out: Path, **more: object) -> Path:
    return pack(system(), steps / "features", steps / "retrieval", steps / "export", out, **more)  # type: ignore[arg-type]


def test_the_last_cut_becomes_a_bundle_that_answers(steps: Path, tmp_path: Path) -> None:
    folder = packed(steps, tmp_path)
    manifest = show(folder)
    assert manifest["span"] == {"cut": "2024-10-04", "cut_day": DAY, "users": 12, "items": ITEMS}
    assert manifest["metrics"] == {"export": {"light": {"drift": None, "overlap": 0.5}}}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    answer = Recommender(Bundle.load(folder), system()).recommend(Request("u03", 10, DAY), states()[3])
    assert {item.item_id for item in answer.items[:3]} == {"i003", "i015", "i027"}


def test_the_same_steps_give_the_same_digest(steps: Path, tmp_path: Path) -> None:
    assert packed(steps, tmp_path / "a").name == packed(steps, tmp_path / "b").name


def test_popular_lists_count_users_of_the_region_who_had_the_item_lately(steps: Path, tmp_path: Path) -> None:
    # each user had item n (9 days ago), n + 12 and n + 24 (30 days ago: too long); regions go east, west, unknown by the user's number
    made = fallback(catalogue(), states())
    assert made.regions == ("east", "unknown", "west")
    assert made.popular("east")[:4].tolist() == [0, 3, 6, 9]
    assert made.popular("west")[:4].tolist() == [1, 4, 7, 10]
    assert made.static().tolist() == list(range(12))
    assert made.popular("nowhere").tolist() == []


def test_batch_lists_become_the_users_own(steps: Path, tmp_path: Path) -> None:
    table = {"user_id": ["u02", "u01", "u02", "u01"], "item_id": ["i009", "i004", "i005", "gone"], "rank": [1, 0, 0, 1], "score": [0.1] * 4}
    pq.write_table(pa.table(table), tmp_path / "lists.parquet")
    bundle = Bundle.load(packed(steps, tmp_path / "out", lists=tmp_path / "lists.parquet"))
    assert bundle.fallback.user("u02").tolist() == [5, 9]
    assert bundle.fallback.user("u01").tolist() == [4]
    assert bundle.fallback.user("u03").tolist() == []


def test_a_stranger_without_a_region_is_answered_from_the_whole_catalogue(steps: Path, tmp_path: Path) -> None:
    recommender = Recommender(Bundle.load(packed(steps, tmp_path)), system())
    answer = recommender.recommend(Request("nobody", 237, DAY), UserState("nobody"))
    assert np.unique([item.row for item in answer.items]).size == 237


def test_a_missing_part_is_named(steps: Path, tmp_path: Path) -> None:
    shutil.copytree(steps, tmp_path / "steps")
    (tmp_path / "steps" / "export" / "heavy.onnx").unlink()
    with pytest.raises(BadBundle, match=r"part heavy.onnx: .* does not exist"):
        packed(tmp_path / "steps", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    shutil.rmtree(tmp_path / "steps" / "features" / "cuts")
    with pytest.raises(NothingToPack, match="holds no cut"):
        packed(tmp_path / "steps", tmp_path / "out")


def test_nothing_in_the_manifest_depends_on_where_it_was_made(steps: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in json.dumps(show(packed(steps, tmp_path)))
