"""Fits `serving/retrieval/sessions.py`: the sessions before the cut, by item and by session. A user of the tables is a session here.

Shapes: S sessions, N items of all of them, I items.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from serving.retrieval.sessions import SessionTable
from serving.system import SourceSpec

MOST = 500_000  # sessions, the latest: 20 MB with ten items each
LEAST = 2  # items of a session that says something of what goes together


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """Count nothing: keep who had what, in the order it came."""
    history = cut.history
    table(history.user, history.row, history.last_day, len(cut.catalogue), float(spec.settings["days"])).save(folder)


def table(session: NDArray[np.int64], row: NDArray[np.int32], day: NDArray[np.float64], items: int, days: float) -> SessionTable:
    """The table of sessions given as (N,) entries: whose, which item, when last. The latest `MOST` with `LEAST` items or more are kept."""
    sizes, ends = np.bincount(session), np.zeros(int(session.max(initial=-1)) + 1)
    np.maximum.at(ends, session, day)
    kept = np.flatnonzero(sizes >= LEAST)
    kept = kept[np.argsort(ends[kept], kind="stable")][-MOST:]
    number = np.full(len(sizes), -1, np.int64)
    number[kept] = np.arange(len(kept))
    order = np.lexsort((day, number[session]))
    order = order[number[session[order]] >= 0]
    numbers, rows = number[session[order]], row[order]
    by_item = np.lexsort((-numbers, rows))
    return SessionTable(
        items=rows.astype(np.int32),
        ends=np.cumsum(np.bincount(numbers, minlength=len(kept))),
        of_item=numbers[by_item].astype(np.int32),
        item_ends=np.cumsum(np.bincount(rows, minlength=items)),
        days=days,
    )
