"""A cut folder: what was known before a moment, and who chose what in the days after it. Its only reader.

The catalogue, every user's state, and the history as one sparse matrix.

Shapes: U users, I items, N history rows of all users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.names import TAUS_DAYS
from serving.bundle.catalogue import Catalogue
from serving.retrieval.interest import mix_for
from serving.state.user_state import StateTable

LABELS = "labels.parquet"
OUTCOMES = "outcomes.parquet"  # what came of an item, for each head
SHOWN = "shown.parquet"  # what was shown in the days after the cut
USERS = "users"  # what was known of everybody at the cut
ASKED = "asked"  # whoever came after it, told up to the moment they are asked; not there where those known at the cut are


@dataclass(frozen=True)
class Cut:
    """What was known before a moment."""

    name: str
    folder: Path
    catalogue: Catalogue
    users: StateTable  # who sources learn from

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(folder.name, folder, Catalogue.load(folder / "item_table"), StateTable.load(folder / USERS))

    @cached_property
    def asked(self) -> StateTable:
        """For whom lists are asked, and whose labels stand beside them."""
        return StateTable.load(self.folder / ASKED) if (self.folder / ASKED).is_dir() else self.users

    @cached_property
    def history(self) -> "HistoryMatrix":
        return HistoryMatrix.of(self.users, self.catalogue)

    @cached_property
    def asked_history(self) -> "HistoryMatrix":
        """Of those who are asked."""
        return self.history if self.asked is self.users else HistoryMatrix.of(self.asked, self.catalogue)

    @cached_property
    def labels(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Indices into `asked` and item rows of the days after the cut, one pair each: (L,), (L,). Empty when the log ends at the cut."""
        names, items = read_labels(self.folder)
        users = {bytes(user).decode(): index for index, user in enumerate(self.asked.user_ids)}
        user = np.array([users.get(name, -1) for name in names], np.int64)
        row = rows_of_ids(self.catalogue, items)
        known = (user >= 0) & (row >= 0)
        return user[known], row[known]


@dataclass(frozen=True)
class HistoryMatrix:
    """All users' history end to end: entry n says user[n] had item row[n]."""

    user: NDArray[np.int64]  # (N,) ascending
    row: NDArray[np.int32]  # (N,)
    first_day: NDArray[np.float64]
    last_day: NDArray[np.float64]
    counts: NDArray[np.float32]
    decayed: NDArray[np.float32]  # (N, T) at the cut, or when each is asked
    shape: tuple[int, int]  # (U, I)

    @classmethod
    def of(cls, users: StateTable, catalogue: Catalogue) -> Self:
        sizes = np.diff(users.ends, prepend=0)
        user = np.repeat(np.arange(len(users)), sizes)
        row = catalogue.rows_of_keys(users.keys)
        day = users.asked_days[user] if len(users.asked_days) else users.cut_day
        age = np.maximum(day - users.last_day, 0.0)[:, None]
        decayed = (users.decayed * np.exp(-age / np.asarray(TAUS_DAYS))).astype(np.float32)
        known = row >= 0
        return cls(
            user[known], row[known], users.first_day[known], users.last_day[known], users.counts[known], decayed[known],
            (len(users), len(catalogue)),
        )  # fmt: skip

    def decay(self, tau_days: float) -> NDArray[np.float32]:
        """(N,) counts decayed by `tau_days` at the cut."""
        return self.decayed @ np.asarray(mix_for(tau_days), np.float32)

    def users_since(self, day: float) -> NDArray[np.float32]:
        """(I,) distinct users whose last event with each item is at or after `day`."""
        recent = self.row[self.last_day >= day]
        return np.bincount(recent, minlength=self.shape[1]).astype(np.float32)


def asked_folder(cut: Path) -> Path:
    """The states of those who are asked at a cut."""
    return cut / ASKED if (cut / ASKED).is_dir() else cut / USERS


def rows_of_ids(catalogue: Catalogue, item_ids: list[str]) -> NDArray[np.int32]:
    """Rows of catalogue ids; -1 where unknown."""
    rows = {bytes(item).decode(): row for row, item in enumerate(catalogue.item_ids)}
    return np.array([rows.get(item, -1) for item in item_ids], np.int32)


def read_labels(cut: Path) -> tuple[list[str], list[str]]:
    """User ids and item ids of what was chosen in the days after a cut, one pair a row; empty when the log ends at the cut."""
    path = cut / LABELS
    if not path.is_file():
        return [], []
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["user_id", "item_id"])
    return table["user_id"].to_pylist(), table["item_id"].to_pylist()


def read_outcomes(cut: Path, heads: Sequence[str]) -> tuple[list[str], list[str], NDArray[np.float32]]:
    """User ids, item ids and what came of the item for each head (N, H), in the days after a cut: 0 nothing, 1, or a value."""
    import pyarrow.parquet as pq

    table = pq.read_table(cut / OUTCOMES)
    values = [table[name].to_numpy(zero_copy_only=False).astype(np.float32) for name in heads]
    return table["user_id"].to_pylist(), table["item_id"].to_pylist(), np.stack(values, axis=1)


def read_shown(cut: Path) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """User ids, item ids and the best positions (NaN: not said) of what was shown in the days after a cut, one pair a row."""
    import pyarrow.parquet as pq

    table = pq.read_table(cut / SHOWN)
    positions = table["position"].to_numpy(zero_copy_only=False).astype(np.float64)
    return table["user_id"].to_pylist(), table["item_id"].to_pylist(), positions


def cut_folders(features: Path) -> list[Path]:
    """The cuts' folders, oldest first; the last goes into the bundle."""
    return sorted(folder for folder in (features / "cuts").iterdir() if folder.is_dir())


def training_cuts(features: Path, most: int) -> list[str]:
    """Names of the newest `most` cuts before the last that have labels, oldest first: the last one's labels are for evaluation alone.

    Raises `ValueError` when there is none.
    """
    usable = [folder.name for folder in cut_folders(features)[:-1][-most:] if (folder / LABELS).is_file()]
    if not usable:
        raise ValueError(f"{features / 'cuts'} holds no cut with labels before its last: build features for more cuts")
    return usable
