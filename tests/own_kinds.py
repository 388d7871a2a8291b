"""A package of somebody else's, as they would write it: a source, a rule and a cross feature that a system file names by module."""

from pathlib import Path

SOURCES = '''
"""More of what was looked at just now: the most wanted items of the same category."""

from dataclasses import dataclass, field, replace

import numpy as np

from serving.bundle.arrays import ArrayFolder
from serving.query import Hits


@dataclass(frozen=True)
class Wanted(ArrayFolder):
    users: np.ndarray  # (I,) who had each item


@dataclass(frozen=True)
class Session:
    spec: object
    wanted: Wanted = field(repr=False)
    catalogue: object = field(repr=False)

    @staticmethod
    def fit(cut, spec, folder, fast):
        users = np.bincount(cut.history.row, minlength=len(cut.catalogue)) * float(spec.settings["strength"])
        Wanted(users.astype(np.float32)).save(folder)

    @classmethod
    def load(cls, folder, spec, catalogue):
        return cls(spec, Wanted.load(folder), catalogue)

    def retrieve(self, query, n, vector=None):
        values = np.zeros(len(self.catalogue), np.float32)
        for row in range(len(values)):
            values[row] = self.contributions(query, row)[1].sum()
        values[query.excluded] = 0
        rows = np.argsort(-values, kind="stable")[: min(n, int((values > 0).sum()))].astype(np.int32)
        return Hits(rows, values[rows], values)

    def contributions(self, query, row):
        rows, weights = query.session
        alike = self.catalogue.category[rows, 1] == self.catalogue.category[row, 1]
        wanted = 1 + (self.wanted.users[row] if row < len(self.wanted.users) else 0)
        order = np.argsort(-weights[alike], kind="stable")
        return rows[alike][order], (weights[alike] * wanted)[order]

    def nearest(self, query, row):
        rows, _ = self.contributions(query, row)
        return int(rows[0]) if len(rows) else -1

    def reason(self, query, row):
        return "More of what you are looking at" if self.nearest(query, row) >= 0 else ""

    def with_new_items(self, catalogue, sides):
        return replace(self, catalogue=catalogue)


class Half:
    """Lacks two parts of the interface."""

    def load(self): ...

    def retrieve(self): ...
'''

RULES = '''
from dataclasses import dataclass

import numpy as np

from serving.rules.rule import Bar


@dataclass(frozen=True)
class Dearest(Bar):
    """Never one of the dearest items."""

    above: float

    def bars(self, catalogue):
        return np.nan_to_num(np.asarray(catalogue.price)) > self.above
'''

FEATURES = '''
import numpy as np


def dearer(query, candidates):
    """(C,) log of an item's price over the mean of what the user has had."""
    price, had = np.asarray(query.catalogue.price), query.history_rows
    return np.log(price[candidates.rows] / price[had].mean()) if len(had) else np.full(len(candidates), np.nan)


def half(query, candidates):
    """One number for all, which is none for each."""
    return np.zeros(1)
'''

SYSTEM = """
from serving.objectives import Objective
from serving.retrieval.buy_again import buy_again
from serving.retrieval.trending import trending
from serving.rules.specs import at_most, in_stock, rule
from serving.system import Budget, Learning, SourceSpec, System

OWN = System(
    name="own", answer_size=5, pool_size=80, light_size=40,
    sources=(
        buy_again(tau_days=30, share=0.4),
        trending(days=28, share=0.3),
        SourceSpec.of("mypackage.sources:Session", share=0.3, weight=0.5, discover_weight=0.5, offset=5.0, strength=2.0),
    ),
    objectives={"repeat": Objective("again positive", 0.6), "discover": Objective("first positive", 0.4, listwise=0.3)},
    rules=(in_stock(), rule("mypackage.rules:Dearest", above=ABOVE), at_most(3, per="category")),
    budget=Budget(), learning=Learning(cuts=4, cross=("mypackage.features:dearer",)),
    feature_repo="tests/world/feature_repo", ingest="tests.world.generate:ingest", noun="snack", verb="ate",
)
"""


def write_package(folder: Path, above: float) -> Path:
    """`folder/mypackage/{sources,rules,features}.py` and `folder/own.py`, the system that names them; the system's file."""
    package = folder / "mypackage"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("sources", SOURCES), ("rules", RULES), ("features", FEATURES)):
        (package / f"{name}.py").write_text(text)
    (folder / "own.py").write_text(SYSTEM.replace("ABOVE", repr(above)))
    return folder / "own.py"
