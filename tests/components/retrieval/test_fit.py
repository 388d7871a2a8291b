"""The whole stage on a small world: what is written is what the serving code loads, twice the same, and measured truthfully."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from components.retrieval.fit import fit
from components.retrieval.twins import UnfittableSource
from components.start import leave
from serving.bundle.catalogue import Catalogue
from serving.objectives import Objective
from serving.retrieval.buy_again import buy_again
from serving.retrieval.category_promotion import category_promotion
from serving.retrieval.fusion import retrieve
from serving.retrieval.linear import linear
from serving.retrieval.sources import load_sources
from serving.retrieval.trending import trending
from serving.retrieval.two_tower import two_tower
from serving.state.user_state import StateTable
from serving.system import Budget, Learning, SourceSpec, System
from tests.components.retrieval.worlds import CUT_DAY, catalogue, checkerboard, query, states

SIZE = 20
SYSTEM = System(
    name="board", answer_size=3, pool_size=15, light_size=10,
    sources=(
        buy_again(share=0.2), linear(share=0.3), two_tower(share=0.2, dimensions=8), category_promotion(share=0.2), trending(share=0.1)
    ),
    objectives={"chosen": Objective("positive", 1.0)}, rules=(), budget=Budget(), learning=Learning(), feature_repo="", ingest="",
)  # fmt: skip


def features(folder: Path) -> Path:
    """Two cuts of the checkerboard; at the second every user chooses the one item of their colour they lack, and one they had."""
    items = catalogue([f"{i:02d}" for i in range(SIZE)], places=("p0",))
    events = checkerboard(SIZE)
    names = sorted({user for user, _, _ in events})
    for cut, day in (("2017-01-01", CUT_DAY - 7), ("2017-01-08", CUT_DAY)):
        replace(items, cut_day=day).save(folder / "cuts" / cut / "item_table")
        replace(states([(u, i, day - 1) for u, i, _ in events], names), cut_day=day).save(folder / "cuts" / cut / "users")
        had = [f"{(int(name) + 2) % SIZE:02d}" for name in names]
        labels = pyarrow.table({"user_id": [*names, *names], "item_id": [*names, *had], "count": [1.0] * 2 * len(names)})
        pyarrow.parquet.write_table(labels, folder / "cuts" / cut / "labels.parquet")
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("fit")
    fit(SYSTEM, features(home / "features"), home / "out", fast=True, seed=1)
    return home / "features", home / "out"


def test_every_cut_has_every_source_and_the_users_vectors(fitted: tuple[Path, Path]) -> None:
    _, out = fitted
    for cut in ("2017-01-01", "2017-01-08"):
        assert sorted(path.name for path in (out / "cuts" / cut / "sources").iterdir()) == sorted(spec.kind for spec in SYSTEM.sources)
        assert np.load(out / "cuts" / cut / "user_vectors.npy").shape == (SIZE, 8)
        assert (out / "towers" / f"{cut}.pt").is_file()


def test_the_pool_holds_the_one_item_each_user_lacks(fitted: tuple[Path, Path]) -> None:
    folder, out = fitted
    cut = folder / "cuts" / "2017-01-08"
    items, users = Catalogue.load(cut / "item_table"), StateTable.load(cut / "users")
    sources = load_sources(SYSTEM.sources, out / "cuts" / "2017-01-08" / "sources", items)
    vectors = np.load(out / "cuts" / "2017-01-08" / "user_vectors.npy")
    for user in range(SIZE):
        asked = query(users[user], items, discover=True)
        pool = retrieve(asked, sources, SYSTEM.pool_size, vectors[user])
        assert user in pool.rows
        assert not pool.seen.any()
        assert not np.isin(pool.rows, asked.history_rows).any()


def test_the_report_tells_each_sources_own_and_marginal_recall(fitted: tuple[Path, Path]) -> None:
    recall = json.loads((fitted[1] / "retrieval.json").read_text())["recall"]
    assert recall["cut"] == "2017-01-08"
    # half of every user's labels was had before: buy again finds exactly that half; of the new half, none
    assert recall["all"]["buy_again"]["own"] == {"recall@100": 0.5, "recall@1000": 0.5}
    assert recall["new"]["buy_again"]["own"] == {"recall@100": 0.0, "recall@1000": 0.0}
    assert recall["new"]["linear"]["own"] == {"recall@100": 1.0, "recall@1000": 1.0}
    assert recall["new"]["users"] == SIZE


def test_the_same_seed_writes_the_same_bytes(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = fitted
    fit(SYSTEM, folder, tmp_path, fast=True, seed=1)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_the_tower_of_a_cut_does_not_depend_on_what_came_after(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    """A planted future: the second cut is rewritten, and the first cut's towers stay byte for byte what they were."""
    folder = features(tmp_path / "features")
    events = [(user, item, CUT_DAY - 2) for user, item, _ in checkerboard(SIZE)[::2]]
    states(events, sorted({user for user, _, _ in checkerboard(SIZE)})).save(folder / "cuts" / "2017-01-08" / "users")
    (folder / "cuts" / "2017-01-01" / "labels.parquet").unlink()
    fit(SYSTEM, folder, tmp_path / "out", fast=True, seed=1)
    first = Path("cuts") / "2017-01-01" / "user_vectors.npy"
    assert (tmp_path / "out" / first).read_bytes() == (fitted[1] / first).read_bytes()
    assert (tmp_path / "out" / "towers" / "2017-01-01.pt").read_bytes() == (fitted[1] / "towers" / "2017-01-01.pt").read_bytes()


def test_a_source_that_nothing_fits_is_named(tmp_path: Path) -> None:
    odd = replace(SYSTEM, sources=(SourceSpec("oracle", 1.0),))
    with pytest.raises(UnfittableSource, match="no fit"):
        fit(odd, features(tmp_path / "features"), tmp_path / "out")


def test_the_towers_losses_are_kept_a_value_a_cut(fitted: tuple[Path, Path]) -> None:
    told = json.loads((fitted[1] / "retrieval.json").read_text())
    assert (len(told["losses"]), told["mode"], told["started_from"]) == (2, "full", [])
    assert all(0 < loss < 10 for loss in told["losses"])


def test_a_daily_one_goes_on_from_what_a_full_one_left(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = fitted
    (tmp_path / "ranking").mkdir()
    for name in ("light.pt", "heavy.pt"):
        (tmp_path / "ranking" / name).touch()
    start = leave("f00d", folder, out, tmp_path / "ranking", tmp_path / "start")
    assert [file.name for file in sorted((start / "towers").iterdir())] == ["2017-01-01.pt", "2017-01-08.pt"]
    fit(SYSTEM, folder, tmp_path / "daily", fast=True, seed=1, start=start)
    told = json.loads((tmp_path / "daily" / "retrieval.json").read_text())
    assert (told["mode"], told["started_from"]) == ("daily", ["f00d"])
    assert told["losses"][0] < json.loads((out / "retrieval.json").read_text())["losses"][0]  # it knew much already
    then, now = (np.load(place / "cuts" / "2017-01-08" / "user_vectors.npy") for place in (out, tmp_path / "daily"))
    assert (then * now).sum(1).mean() > 0.5  # vectors of length one, in the same basis
