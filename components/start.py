"""What a daily training starts from: a judged bundle's towers and rankers, and the names of the rows and codes in them.

A folder beside the bundle, for learning alone; nothing that answers reads it:

towers/<cut>.pt      the towers at its last two cuts; those of a cut had seen nothing of the days after it
light.pt heavy.pt    the rankers, calibrated
item_ids.npy         (I,) the items of the towers' rows
start.json           the bundle, its cut, and the names behind the rankers' codes
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from components.cut import cut_folders
from serving.bundle.catalogue import Catalogue

Mode = Literal["full", "daily"]
TOWERS_KEPT = 2  # the next day's examples begin between the last two cuts


class BadStart(ValueError):
    """A daily training cannot start from what there is."""


@dataclass(frozen=True)
class Start:
    """One such folder, opened. Shapes: I items then."""

    folder: Path
    bundle: str  # digest, hexadecimal
    cut: str  # what it knows lies before
    item_ids: NDArray[np.bytes_]  # (I,)
    category_names: tuple[str, ...]
    brand_names: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        told = json.loads((folder / "start.json").read_text())
        ids = np.load(folder / "item_ids.npy", allow_pickle=False)
        return cls(folder, told["bundle"], told["cut"], ids, tuple(told["category_names"]), tuple(told["brand_names"]))

    def towers_before(self, cut: str) -> Path | None:
        """The newest towers that have seen nothing after `cut`; None where no tower was learnt. Raises `BadStart`."""
        kept = sorted(self.folder.glob("towers/*.pt"))
        found = [file for file in kept if file.stem <= cut]
        if kept and not found:
            raise BadStart(f"the towers of bundle {self.bundle[:12]} have all seen what came after {cut}: train with --mode full")
        return found[-1] if found else None

    def rows_of(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """(J,) the row that each of the catalogue's items had then; -1 where it is new."""
        order = np.argsort(self.item_ids, kind="stable")
        wanted = np.asarray(catalogue.item_ids)
        at = order[np.minimum(np.searchsorted(self.item_ids, wanted, sorter=order), len(order) - 1)]
        return np.where(self.item_ids[at] == wanted, at, -1)

    def refuse_if_it_knows(self, cut: str) -> None:
        """Raise `BadStart` when it has learnt from rows after `cut`: a candidate is not judged on what it has seen."""
        if self.cut > cut:
            told = f"bundle {self.bundle[:12]} has learnt from rows up to {self.cut}, after the cut {cut}"
            raise BadStart(f"{told}: choose a later --until, or train with --mode full")


def leave(bundle: str, features: Path, retrieval: Path, ranking: Path, out: Path) -> Path:
    """Write the folder of the bundle with this digest from what its steps left, by hard links where possible; `out`."""
    (out / "towers").mkdir(parents=True, exist_ok=True)
    cut = cut_folders(features)[-1]
    towers = sorted((retrieval / "towers").glob("*.pt"))[-TOWERS_KEPT:]
    for tower in towers:
        _link(tower, out / "towers" / tower.name)
    for name in ("light.pt", "heavy.pt"):
        _link(ranking / name, out / name)
    catalogue = Catalogue.load(cut / "item_table")
    np.save(out / "item_ids.npy", np.asarray(catalogue.item_ids), allow_pickle=False)
    told = {"bundle": bundle, "cut": cut.name, "category_names": catalogue.category_names, "brand_names": catalogue.brand_names}
    (out / "start.json").write_text(json.dumps(told, indent=1) + "\n")
    return out


def known_mode(mode: str) -> Mode:
    """Raises `ValueError` for any other word."""
    for known in get_args(Mode):
        if mode == known:
            return known
    raise ValueError(f"{mode!r} is no mode: choose {' or '.join(get_args(Mode))}")


def _link(file: Path, place: Path) -> None:
    place.unlink(missing_ok=True)
    try:
        os.link(file, place)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, place)
