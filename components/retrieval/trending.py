"""Fits `serving/retrieval/trending.py`: the most wanted items of the last days, for everyone, every region and every store.

Shapes: I items, G groups, n items a list.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from serving.retrieval.top_k import select
from serving.retrieval.trending import EVERYONE, PLACE, REGION, Lists
from serving.system import SourceSpec

LENGTH = 1500  # items a list: a pool, and room for what a user has had
_LEAST_USERS = 20  # active users below which a region or store has no list of its own
_SMOOTHING = 200.0  # users' worth of everyone's taste mixed into a group's


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """Lists of distinct users in the last `days`; a group's list is its own counts smoothed by everyone's."""
    history, users = cut.history, cut.users
    recent = history.last_day >= users.cut_day - float(spec.settings["days"])
    user, row = history.user[recent], history.row[recent]
    everyone = np.bincount(row, minlength=history.shape[1]).astype(np.float32)
    active = max(len(np.unique(user)), 1)
    groups, scores = [EVERYONE], [everyone]
    for kind, names in ((REGION, users.region), (PLACE, users.place)):
        of_user = np.asarray(names)
        for name in np.unique(of_user[np.unique(user)]):
            members = of_user[user] == name
            size = len(np.unique(user[members]))
            if name and size >= _LEAST_USERS:
                own = np.bincount(row[members], minlength=history.shape[1])
                groups.append(f"{kind}:{name.decode()}")
                scores.append(((own + _SMOOTHING / active * everyone) / (size + _SMOOTHING) * active).astype(np.float32))
    lists = [_list(score) for score in scores]
    Lists(tuple(groups), np.stack([rows for rows, _ in lists]), np.stack([values for _, values in lists]), everyone).save(folder)


def _list(scores: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    found = select(scores, LENGTH, floor=0.0)
    rows = np.full(LENGTH, -1, np.int32)
    values = np.zeros(LENGTH, np.float32)
    rows[: len(found)], values[: len(found)] = found, scores[found]
    return rows, values
