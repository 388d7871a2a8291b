"""Fits `serving/retrieval/trending.py`: the most wanted items of the last days, for everyone, every region and every store.

Shapes: I items, G groups, n items a list.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from serving.retrieval.top_k import select
from serving.retrieval.trending import EVERYONE, PLACE, PLAIN, REGION, Lists
from serving.system import SourceSpec, Value

LENGTH = 1500  # items a list: a pool, and room for what a user has had
_LEAST_USERS = 20  # active users below which a region or store has no list of its own
_LEAST_THERE = 0.25  # days: what a thing was had in its first hours is luck


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """Lists of distinct users in the last `days`, each counting less by the age of what it had; a group's list is its own counts smoothed
    by everyone's. With `velocity` they are users a day, of the days an item was there.
    """
    history, users = cut.history, cut.users
    recent = history.last_day >= users.cut_day - float(spec.settings["days"])
    user, row = history.user[recent], history.row[recent]
    weight = decayed(users.cut_day - history.last_day[recent], spec)
    everyone = np.bincount(row, weight, minlength=history.shape[1]).astype(np.float32)
    active, smoothing = max(len(np.unique(user)), 1), float(of(spec, "smoothing"))
    faster = speed(cut, spec)
    groups, lists = [EVERYONE], [_list(everyone * faster)]
    for kind, names in ((REGION, users.region), (PLACE, users.place)):
        for name, members in _groups(np.asarray(names), user):
            size = len(np.unique(user[members]))
            if name and size >= _LEAST_USERS:
                own = np.bincount(row[members], weight[members], minlength=history.shape[1])
                groups.append(f"{kind}:{name.decode()}")
                lists.append(_list(((own + smoothing / active * everyone) / (size + smoothing) * active).astype(np.float32) * faster))
    Lists(tuple(groups), np.stack([rows for rows, _ in lists]), np.stack([values for _, values in lists]), everyone).save(folder)


def _groups(names: NDArray[np.bytes_], user: NDArray[np.int64]) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
    """By name, of users who are `names` (U,): which entries (N,) are its own, ascending; `user` (N,) says whose each is."""
    distinct, code = np.unique(names, return_inverse=True)
    of_entry = code[user]
    ends = np.cumsum(np.bincount(of_entry, minlength=len(distinct)))
    yield from zip(distinct.tolist(), np.split(np.argsort(of_entry, kind="stable"), ends[:-1]), strict=False)


def of(spec: SourceSpec, name: str) -> Value:
    """A setting, or what it is where the system file does not say it."""
    return spec.settings.get(name, PLAIN[name])


def decayed(age: NDArray[np.float64], spec: SourceSpec) -> NDArray[np.float64]:
    """(N,) what each counts by its age in days; 1 where the source has no `tau_days`."""
    tau = float(of(spec, "tau_days"))
    return np.exp(-age / tau) if tau else np.ones(len(age))


def speed(cut: Cut, spec: SourceSpec) -> NDArray[np.float32]:
    """(I,) how many times as much an item would have if it had been there all the days: 1 without `velocity`, or where that is unknown."""
    days, tau = float(spec.settings["days"]), float(of(spec, "tau_days"))
    if not of(spec, "velocity"):
        return np.ones(len(cut.catalogue), np.float32)
    age = np.nan_to_num(cut.users.cut_day - np.array(cut.catalogue.created_day), nan=days)
    there = np.clip(age, _LEAST_THERE, days)

    def counted(length: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return tau * (1 - np.exp(-np.asarray(length) / tau)) if tau else np.asarray(length)

    return (counted(days) / counted(there)).astype(np.float32)


def _list(scores: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    found = select(scores, LENGTH, floor=0.0)
    rows = np.full(LENGTH, -1, np.int32)
    values = np.zeros(LENGTH, np.float32)
    rows[: len(found)], values[: len(found)] = found, scores[found]
    return rows, values
