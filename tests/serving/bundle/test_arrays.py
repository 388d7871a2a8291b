"""What a folder of arrays holds is declared at its fields and checked when it is loaded."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.bundle.arrays import ArrayFolder, BadFolder, Held, held_by
from serving.bundle.bundle import BadBundle, Bundle
from serving.bundle.catalogue import Catalogue
from serving.bundle.fallback import Fallback
from serving.ranking.layers import Layers
from serving.ranking.user_side import Standard, UserLayers
from serving.recommender import Recommender
from serving.retrieval.buy_again import Habits
from serving.retrieval.category_promotion import Offers
from serving.retrieval.cells import Cells
from serving.retrieval.linear import Neighbours
from serving.retrieval.trending import Lists
from serving.retrieval.two_tower import TowerTable
from serving.system import load_system
from tests.bench.synthetic import Sizes, write_synthetic
from tests.serving import tiny_bundle

FOLDERS = (Catalogue, Fallback, Layers, Standard, UserLayers, Habits, Offers, Cells, Neighbours, Lists, TowerTable)


@dataclass(frozen=True)
class Shelf(ArrayFolder):
    """Three boxes of things."""

    ends: Annotated[NDArray[np.int64], Held("B", ends="T")]
    things: Annotated[NDArray[np.int32], Held("T", -1, "names")]
    lengths: Annotated[NDArray[np.float32], Held("T2")]
    prices: Annotated[NDArray[np.float32], Held("T", unknown=True)]
    names: tuple[str, ...]


GOOD = Shelf(
    np.array([1, 1, 3]), np.array([0, -1, 1], np.int32), np.ones((3, 2), np.float32), np.array([1, np.nan, 2], np.float32), ("a", "b")
)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"things": np.array([0, 2, 1], np.int32)}, "things.npy holds 2 at [1], expected -1 to 1"),
        ({"things": np.array([0, 0, -2], np.int32)}, "things.npy holds -2 at [2], expected -1 to 1"),
        ({"things": np.array([0, 0, 1])}, "things.npy holds int64, expected int32"),
        ({"things": np.array([0, 0], np.int32)}, "lengths.npy is of shape (3, 2), expected 2 along axis T"),
        ({"ends": np.array([1, 0, 3])}, "ends.npy holds 1 at [0], expected ends that rise to 3"),
        ({"ends": np.array([1, 2, 4])}, "ends.npy holds 4 at [2], expected ends that rise to 3"),
        ({"ends": np.array([-1, 1, 3])}, "ends.npy holds -1 at [0], expected ends that rise to 3"),
        ({"lengths": np.ones((3, 3), np.float32)}, "lengths.npy is of shape (3, 3), expected 2 along axis 2"),
        ({"lengths": np.ones(3, np.float32)}, "lengths.npy has 1 axes, expected 2"),
        ({"lengths": np.array([[1, 1], [1, np.inf], [1, 1]], np.float32)}, "lengths.npy holds inf at [1, 1], expected a finite number"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_value(tmp_path: Path, wrong: dict[str, np.ndarray], told: str) -> None:
    GOOD.save(tmp_path)
    assert Shelf.load(tmp_path).names == ("a", "b")
    replace(GOOD, **wrong).save(tmp_path)
    with pytest.raises(BadFolder) as refused:
        Shelf.load(tmp_path)
    assert told in str(refused.value)


def test_a_length_known_elsewhere_binds_an_axis(tmp_path: Path) -> None:
    GOOD.save(tmp_path)
    assert Shelf.load(tmp_path, T=3, B=3)
    with pytest.raises(BadFolder, match="expected 4 along axis T"):
        Shelf.load(tmp_path, T=4)


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_array_of_a_bundle_says_what_it_holds(kind: type[ArrayFolder]) -> None:
    for name, (types, of) in held_by(kind).items():
        assert of.axes, name
        if np.issubdtype(types[0], np.integer):
            assert of.any or of.ends or of.below is not None, name


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(
        load_system("shop"),
        tmp_path_factory.mktemp("spoilt"),
        Sizes(items=2_000, users=3, with_neighbours=500, neighbours=10, on_offer=900),
    )[0]


def spoilt(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A fifth of the numbers as great, a tenth as small as they come; of floats NaN and endless ones."""
    bad, flat = array.copy(), random.random(array.size).reshape(array.shape)
    most, least = (np.inf, np.nan) if array.dtype.kind == "f" else (np.iinfo(array.dtype).max, np.iinfo(array.dtype).min)
    bad[flat < 0.2], bad[flat > 0.9] = most, least
    bad.flat[0] = most
    return bad


def may_hold_anything(path: Path) -> bool:
    """What is declared so, and only that: codes, names and texts are all there is to them."""
    kinds = {"item_table": Catalogue, "linear": Neighbours, "two_tower": TowerTable}
    of = held_by(kinds[path.parent.name]).get(path.stem) if path.parent.name in kinds else None
    return of is not None and (of[1].any or of[1].unknown)


def test_every_spoilt_array_of_a_bundle_is_refused_by_name(shop: Path) -> None:
    random, tried = np.random.default_rng(1), 0
    for path in sorted(shop.rglob("*.npy")):
        array = np.load(path, allow_pickle=False)
        if array.dtype.kind not in "iuf" or array.size < 2 or may_hold_anything(path):
            continue
        whole = path.read_bytes()
        np.save(path, spoilt(array, random), allow_pickle=False)
        with pytest.raises(ValueError, match=f"{path.name} holds") as refused:
            Recommender(Bundle.load(shop, verify=False), load_system("shop"))
        assert str(path.parent) in str(refused.value)
        path.write_bytes(whole)
        tried += 1
    assert tried > 40
    Recommender(Bundle.load(shop), load_system("shop"))


def test_a_bundle_whose_catalogue_is_spoilt_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    folder = tiny_bundle.write_tiny(tmp_path)
    path = folder / "fallback" / "user_rows.npy"
    np.save(path, np.full((tiny_bundle.USERS, 50), tiny_bundle.ITEMS, np.int32))
    with pytest.raises(BadBundle, match=f"user_rows.npy holds {tiny_bundle.ITEMS} at"):
        Bundle.load(folder, verify=False)
