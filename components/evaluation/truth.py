"""What truly happened in the days after the cut, and to whom: the last cut's states and labels in rows of its item table.

Shapes: U users with a target, N target pairs, I items of the catalogue.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import USERS, asked_folder, read_labels
from components.evaluation.metrics import Target
from serving.bundle.catalogue import Catalogue
from serving.state.user_state import StateTable


@dataclass(frozen=True)
class Truth:
    """The judged days: who had what, and what was known before."""

    cut: str  # folder name
    folder: Path
    catalogue: Catalogue
    known: StateTable  # everybody at the cut
    states: StateTable  # those who are asked: the same, or who came after it, each up to the moment they are asked
    users: NDArray[np.int64]  # (U,) state indices of users with a target
    target: Target  # over those users
    had: list[NDArray[np.int32]]  # (U) item rows each had before

    @property
    def asked(self) -> Path:
        """The folder of `states`."""
        return asked_folder(self.folder)

    @cached_property
    def out(self) -> list[NDArray[np.int32]]:
        """(U) item rows that no list of discoveries holds: what each had, and what they never want again."""
        hidden = (self.catalogue.rows_of_keys(self.states[index].hidden) for index in self.users.tolist())
        return [np.concatenate(pair) for pair in zip(self.had, hidden, strict=True)]


def read_truth(features: Path) -> Truth:
    """The last cut's item table, states and labels. Raises `ValueError` when the labels are empty."""
    cut = json.loads((features / "features.json").read_text())["cuts"][-1]["cut"]
    return _read(features / "cuts" / cut, cut)


def judged_days(features: Path) -> int:
    """Days after the last cut that its labels cover: a target's length, or fewer where the rows end before."""
    return int(json.loads((features / "features.json").read_text())["judged_days"])


def read_later(features: Path) -> tuple[list[Truth], list[str]]:
    """The later weeks to judge by, and the cuts of those left out because nothing happened in them."""
    made = json.loads((features / "features.json").read_text()).get("judged", [])
    filled = [cut["cut"] for cut in made if cut["labels"]]
    return [_read(features / "judged" / cut, cut) for cut in filled], [cut["cut"] for cut in made if not cut["labels"]]


def _read(folder: Path, cut: str) -> Truth:
    catalogue, known = Catalogue.load(folder / "item_table"), StateTable.load(folder / USERS)
    states = StateTable.load(asked_folder(folder))
    names, items = read_labels(folder)
    if not names:
        raise ValueError(f"no events in the days after {cut}: choose an earlier --until, so that there is a week to judge by")
    user = _positions(np.asarray(states.user_ids), names)  # (N,)
    if (user < 0).any():
        unknown = names[int(np.argmin(user))]
        raise ValueError(f"labels of {cut} name user {unknown!r}, whom its states lack: build the features again")
    item = _positions(np.asarray(catalogue.item_ids), items)
    item = np.where(item < 0, len(catalogue) + np.arange(len(item)), item)  # counted as a miss
    users, row = np.unique(user, return_inverse=True)  # (U,), (N,)
    rows_of = [catalogue.rows_of_keys(states[index].keys) for index in users.tolist()]
    return Truth(cut, folder, catalogue, known, states, users, Target(row, item, len(users)), rows_of)


def _positions(ids: NDArray[np.bytes_], wanted: list[str]) -> NDArray[np.int64]:
    """(N,) index of each wanted id in the sorted ids, or -1."""
    sought = np.array([text.encode() for text in wanted], np.bytes_)
    at = np.minimum(np.searchsorted(ids, sought), len(ids) - 1)
    return np.where(ids[at] == sought, at, -1)


def new_target(truth: Truth, target: Target | None = None) -> Target:
    """Only what the user had not had before the cut; of `target`, if it is given, instead of the truth's own."""
    target = truth.target if target is None else target
    old = np.zeros(len(target.users), bool)
    for user, rows in enumerate(truth.had):
        mine = target.users == user
        old[mine] = np.isin(target.items[mine], rows)
    return target.only(~old)
