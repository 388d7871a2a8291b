"""What truly happened in the days after the cut, and to whom: the last cut's states and labels in rows of its item table.

Shapes: U users with a target, N target pairs, I items of the catalogue.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import USERS, asked_folder, read_labels
from components.evaluation.metrics import Strata, Target
from components.evaluation.slices import baskets_of, by_baskets
from serving.bundle.catalogue import Catalogue
from serving.state.user_state import NEVER, StateTable

MOST_USERS = 20_000  # judged; of more a sample: an NDCG's error is then some .002, and 20,000 lists take minutes


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
    had: Target  # what each of them had before
    of: int  # users with a target in all, of whom those judged may be a sample

    @property
    def asked(self) -> Path:
        """The folder of `states`."""
        return asked_folder(self.folder)

    @property
    def nothing(self) -> Target:
        """No pair, of the same users."""
        return Target(self.had.users[:0], self.had.items[:0], self.had.count)

    @cached_property
    def out(self) -> Target:
        """What no list of discoveries holds: what each had, and what they never want again."""
        states = self.states
        if not len(states.said_ends):
            return self.had
        owner, entries = entries_of(states.said_ends, self.users)
        rows = self.catalogue.rows_of_keys(np.asarray(states.said_keys)[entries]).astype(np.int64)
        hidden = (rows >= 0) & (np.asarray(states.said)[entries] == NEVER)
        users, items = np.concatenate((self.had.users, owner[hidden])), np.concatenate((self.had.items, rows[hidden]))
        return Target(users, items, self.had.count)


def read_truth(features: Path, most: int = MOST_USERS) -> Truth:
    """The last cut's item table, states and labels; of more than `most` users a sample. Raises `ValueError` when the labels are empty."""
    cut = json.loads((features / "features.json").read_text())["cuts"][-1]["cut"]
    return _read(features / "cuts" / cut, cut, most)


def judged_days(features: Path) -> int:
    """Days after the last cut that its labels cover: a target's length, or fewer where the rows end before."""
    return int(json.loads((features / "features.json").read_text())["judged_days"])


def read_later(features: Path, most: int = MOST_USERS) -> tuple[list[Truth], list[str]]:
    """The later weeks to judge by, and the cuts of those left out because nothing happened in them."""
    made = json.loads((features / "features.json").read_text()).get("judged", [])
    filled = [cut["cut"] for cut in made if cut["labels"]]
    return [_read(features / "judged" / cut, cut, most) for cut in filled], [cut["cut"] for cut in made if not cut["labels"]]


def _read(folder: Path, cut: str, most: int) -> Truth:
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
    judged, strata = _drawn(states, users, most)
    target = Target(row, item, len(users)).of_users(judged)
    return Truth(
        cut, folder, catalogue, known, states, users[judged], replace(target, strata=strata),
        _had(catalogue, states, users[judged]), len(users),
    )  # fmt: skip


def _drawn(states: StateTable, users: NDArray[np.int64], most: int) -> tuple[NDArray[np.intp], Strata | None]:
    """Which of the users (U,) are judged: all, or where there are more than `most` about as many, by how much is known of them.

    A stratum's part is its share, or half of an equal one where that is more: the few who are hardly known are seen too.
    """
    if len(users) <= most:
        return np.arange(len(users)), None
    masks = [*by_baskets(baskets_of(states)[users]).values()]
    stratum = np.argmax(masks, axis=0)  # (U,)
    sizes = np.bincount(stratum, minlength=len(masks))
    asked = np.minimum(sizes, np.maximum(most * sizes // len(users), most // (2 * len(masks))))
    mixed = np.random.default_rng(0).permutation(len(users))
    mixed = mixed[np.argsort(stratum[mixed], kind="stable")]  # stratum by stratum, mixed within
    rank = np.arange(len(users)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    judged = np.sort(mixed[rank < asked[stratum[mixed]]])
    return judged, Strata(stratum[judged], sizes, asked)


def _had(catalogue: Catalogue, states: StateTable, users: NDArray[np.int64]) -> Target:
    """What each of these users (U,) had, as far as the catalogue holds it."""
    owner, entries = entries_of(states.ends, users)
    rows = catalogue.rows_of_keys(np.asarray(states.keys)[entries]).astype(np.int64)
    return Target(owner[rows >= 0], rows[rows >= 0], len(users))


def entries_of(ends: NDArray[np.int64], users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of these users (U,), whose rows of a table end at `ends`: whose each row is, 0 to U - 1, and where it stands: (N,), (N,)."""
    ends = np.asarray(ends)
    begins = np.where(users > 0, ends[np.maximum(users - 1, 0)], 0)
    sizes = ends[users] - begins
    owner = np.repeat(np.arange(len(users)), sizes)
    return owner, np.arange(len(owner)) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)


def _positions(ids: NDArray[np.bytes_], wanted: list[str]) -> NDArray[np.int64]:
    """(N,) index of each wanted id in the sorted ids, or -1."""
    sought = np.array([text.encode() for text in wanted], np.bytes_)
    at = np.minimum(np.searchsorted(ids, sought), len(ids) - 1)
    return np.where(ids[at] == sought, at, -1)


def new_target(truth: Truth, target: Target | None = None) -> Target:
    """Only what the user had not had before the cut; of `target`, if it is given, instead of the truth's own."""
    return (truth.target if target is None else target).without(truth.had)
