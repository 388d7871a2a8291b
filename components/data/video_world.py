"""A video platform whose truth is known: its history as the four tables, and the platform itself, live.

    write(Path("tables"), SMALL, seed=0)               # events, items, users .parquet
    world = World(SMALL, seed=0)                        # the same platform, on its first day
    world.live_until(28, Usual(world))                  # its history, as it usually decides
    step = world.step(TrendingNow(world))                  # four hours under another policy; `OverHttp` asks a running server
    world.expected(visits, rows).watch_a_page           # what any list would bring, exactly
    Oracle(world)(visits)                               # the list of the greatest expected watch time

Sizes: SMALL (2 K users, 5 K videos, 0.4 M events of 28 days), DEFAULT (50 K, 100 K, 11 M), LARGE (200 K users, 1 M videos).
A world is made of numpy's seeded generators alone: the same size and seed give the same bytes. What its numbers mean and how large they are
is said where they stand: who watches in `video/population.py`, what there is in `video/catalogue.py`, how a list is met in
`video/behaviour.py`.
"""

from pathlib import Path

import numpy as np

from components.data.video.live import DEFAULT, LARGE, SMALL, Size, SlatePolicy, World
from components.data.video.oracle import Oracle
from components.data.video.policies import ByChance, SameCategories, Subscribed, TrendingNow, Usual
from components.data.video.tables import events_table, items_table, moment, users_table, write_tables

__all__ = [
    "DEFAULT",
    "LARGE",
    "SMALL",
    "ByChance",
    "Oracle",
    "SameCategories",
    "Size",
    "SlatePolicy",
    "Subscribed",
    "TrendingNow",
    "Usual",
    "World",
    "events_table",
    "items_table",
    "moment",
    "truth",
    "users_table",
    "write",
    "write_tables",
]  # fmt: skip


def write(out: Path, size: Size = SMALL, seed: int = 0, jump_day: float = np.inf) -> World:
    """Write the history's tables into `out`; the world as it stands when the history ends."""
    world = World(size, seed, jump_day)
    write_tables(world, out)
    return world


def ingest(out: Path) -> None:
    """The ingest of the system `video`: the small world's history."""
    write(out)


def truth() -> World:
    """The world of `ingest` as its history ends: what any list would bring from then on."""
    world = World(SMALL, 0)
    world.live_until(SMALL.days, Usual(world))
    return world


def fingerprint() -> str:
    """Which world it is: its size and seed; that its code is another is known without."""
    return f"{SMALL} seed 0"
