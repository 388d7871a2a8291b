"""One moment as the rankers learn from it: what was known, what answered, what followed.

Shapes: I items, U users, D embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import asked_folder, read_labels, read_outcomes, read_shown, rows_of_ids
from serving.bundle.arrays import Floats
from serving.bundle.catalogue import Catalogue, item_key
from serving.retrieval.source import Source
from serving.retrieval.sources import load_sources
from serving.state.user_state import StateTable
from serving.system import System

NOTHING = np.empty(0, np.int32)
SLOTS = 12  # in which an item may have been shown: none, the first ten, further down


@dataclass(frozen=True)
class FittedCut:
    """What was known at a moment, the sources fitted on it, and what each user chose in the days after it."""

    name: str
    catalogue: Catalogue
    users: StateTable  # who is asked
    sources: tuple[Source, ...]
    vectors: Floats | None  # (U, D) the user tower's output; None without a tower
    labels: Mapping[str, NDArray[np.int32]]  # user -> item rows, ascending
    outcomes: Mapping[str, "Outcomes"]  # user -> what came of items for each head
    heads: int  # H
    shown: Mapping[str, Mapping[int, int]]  # user -> item row -> slot it was shown at after the cut

    def wanted(self, user_id: str) -> NDArray[np.int32]:
        """Rows of the items the user chose after the cut."""
        return self.labels.get(user_id, NOTHING)

    def came_of(self, user_id: str, rows: NDArray[np.int32]) -> Floats:
        """(C, H) what came of these items for each head."""
        found = self.outcomes.get(user_id)
        return np.zeros((len(rows), self.heads), np.float32) if found is None else found.of(rows)

    def slots_of(self, user_id: str, rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        """(C,) where these items were shown to the user in the days after the cut; 0 where not that we know."""
        found = self.shown.get(user_id, {})
        return np.array([found.get(row, 0) for row in rows.tolist()], np.uint8)


@dataclass(frozen=True)
class Outcomes:
    """What came of a user's items in the days after a cut. Shapes: n items of which anything came, H heads."""

    rows: NDArray[np.int32]  # (n,) ascending
    values: Floats  # (n, H)

    def of(self, rows: NDArray[np.int32]) -> Floats:
        """(C, H) for these item rows; 0 where nothing came."""
        found = np.zeros((len(rows), self.values.shape[1]), np.float32)
        at = np.minimum(np.searchsorted(self.rows, rows), max(len(self.rows) - 1, 0))
        known = self.rows[at] == rows if len(self.rows) else np.zeros(len(rows), np.bool_)
        found[known] = self.values[at[known]]
        return found


def load_cut(system: System, features: Path, retrieval: Path, name: str) -> FittedCut:
    """One cut from its features and its fitted sources."""
    folder, fitted = features / "cuts" / name, retrieval / "cuts" / name
    catalogue = Catalogue.load(folder / "item_table")
    users = StateTable.load(asked_folder(folder))
    sources = load_sources(system.sources, fitted / "sources", catalogue)
    return FittedCut(
        name,
        catalogue,
        users,
        sources,
        load_vectors(fitted),
        _labels(folder, catalogue),
        load_outcomes(system, folder, catalogue),
        len(system.objectives),
        _shown(folder, catalogue),
    )


def load_vectors(fitted: Path) -> Floats | None:
    """(U, D) what the user tower says of every user at a cut, if a tower was fitted."""
    file = fitted / "user_vectors.npy"
    return np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray) if file.is_file() else None


def _labels(folder: Path, catalogue: Catalogue) -> dict[str, NDArray[np.int32]]:
    """What each user chose in the days after a cut, as item rows; items the catalogue lacks are left out."""
    users, items = (np.array(ids, str) for ids in read_labels(folder))
    distinct, inverse = np.unique(items, return_inverse=True)
    rows = catalogue.rows_of_keys(np.array([item_key(str(item)) for item in distinct], np.uint64))[inverse]
    names, user = np.unique(users, return_inverse=True)
    order = np.argsort(user, kind="stable")
    parts = np.split(rows[order], np.cumsum(np.bincount(user, minlength=len(names)))[:-1])
    return {str(name): np.unique(part[part >= 0]) for name, part in zip(names, parts, strict=True)}


def slot_of(position: float) -> int:
    """1 to SLOTS - 1, of a 0-based position in a list; the last for all further down, and where no position was said. 0: not shown."""
    return SLOTS - 1 if isnan(position) else min(int(position) + 1, SLOTS - 1)


def _shown(folder: Path, catalogue: Catalogue) -> dict[str, dict[int, int]]:
    """The slot at which each user was shown an item in the days after a cut; items the catalogue lacks are left out."""
    users, items, positions = read_shown(folder)
    found: dict[str, dict[int, int]] = {}
    for user, row, position in zip(users, rows_of_ids(catalogue, items).tolist(), positions.tolist(), strict=True):
        if row >= 0:
            found.setdefault(user, {})[row] = slot_of(position)
    return found


def load_outcomes(system: System, folder: Path, catalogue: Catalogue) -> dict[str, Outcomes]:
    """What came of items for each user in the days after a cut; items the catalogue lacks are left out.

    Raises `ValueError` naming a number that is none.
    """
    users, items, values = read_outcomes(folder, tuple(system.objectives))
    if not np.isfinite(values).all():
        n, head = (int(place[0]) for place in np.nonzero(~np.isfinite(values)))
        told = f"user {users[n]}, item {items[n]}, head {tuple(system.objectives)[head]} is {values[n, head]}"
        raise ValueError(f"{folder.name}: what came of {told}, expected a finite number: correct the events' values")
    rows = rows_of_ids(catalogue, items)
    order = np.lexsort((rows, np.array(users, str)))
    order = order[rows[order] >= 0]
    names, begins = np.unique(np.array(users, str)[order], return_index=True)
    parts = zip(names.tolist(), np.split(order, begins[1:]), strict=True) if len(order) else ()
    return {name: Outcomes(rows[part], values[part]) for name, part in parts}


def item_codes(catalogue: Catalogue, names: Catalogue) -> NDArray[np.int32]:
    """(I, 4) the three category levels and the brand, as codes of the catalogue `names`; 0 where that has no such name."""
    category = _recoding(catalogue.category_names, names.category_names)[np.asarray(catalogue.category)]
    brand = _recoding(catalogue.brand_names, names.brand_names)[np.asarray(catalogue.brand)]
    return np.column_stack((category, brand))


def code_sizes(names: Catalogue) -> tuple[int, ...]:
    """How many codes each column of `item_codes` may hold."""
    return (*(len(names.category_names),) * 3, len(names.brand_names))


def _recoding(have: tuple[str, ...], want: tuple[str, ...]) -> NDArray[np.int32]:
    code_of = {name: code for code, name in enumerate(want)}
    return np.array([code_of.get(name, 0) for name in have], np.int32)
