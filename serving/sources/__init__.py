"""Candidate sources: where the pool comes from. One module a kind; its twin in `components/retrieval/` fits what it loads.

The first functions are what a system file writes; `load_sources` turns them into objects that answer.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol

from serving.catalogue import Catalogue
from serving.query import Floats, Hits, Query
from serving.system import SourceSpec

# A submodule's first import binds its name in the package: all are imported before the functions of the same names are defined.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def buy_again(*, share: float, tau_days: float = 90, weight: float = 1.0, discover_weight: float = 0.0) -> SourceSpec:
    """What the user has had, by time-decayed counts. `weight`: in the fused rank; `discover_weight`: where only new items are asked for."""
    return SourceSpec("buy_again", share, {"tau_days": tau_days, "weight": weight, "discover_weight": discover_weight})


def linear(*, share: float, neighbours: int = 200, weight: float = 1.0, discover_weight: float = 1.0) -> SourceSpec:
    """Linear item-item (EASE, Steck 2019) on time-decayed log counts, the top neighbours of each item kept."""
    return SourceSpec("linear", share, {"neighbours": neighbours, "weight": weight, "discover_weight": discover_weight})


def two_tower(*, share: float, dimensions: int = 64, weight: float = 1.0, discover_weight: float = 1.0) -> SourceSpec:
    """Nearest items to the user's vector; the item tower reads content, so an item never sold has a vector too."""
    return SourceSpec("two_tower", share, {"dimensions": dimensions, "weight": weight, "discover_weight": discover_weight})


def category_promotion(*, share: float, weight: float = 1.0, discover_weight: float = 1.0) -> SourceSpec:
    """Category affinity x popularity x promotion x store."""
    return SourceSpec("category_promotion", share, {"weight": weight, "discover_weight": discover_weight})


def trending(*, share: float, days: float = 28, weight: float = 0.5, discover_weight: float = 0.5) -> SourceSpec:
    """What many users had lately."""
    return SourceSpec("trending", share, {"days": days, "weight": weight, "discover_weight": discover_weight})


class Source(Protocol):
    """Anything that answers a query with its best items."""

    spec: SourceSpec

    def retrieve(self, query: Query, n: int, vector: Floats | None = None) -> Hits:
        """The best `n` items, none of `query.excluded`. `vector` (D,): the user tower's output, for the sources that search by it."""
        ...


class UnknownSource(ValueError):
    """A system file names a source that has no module here."""


def load_sources(specs: Iterable[SourceSpec], folder: Path, catalogue: Catalogue) -> tuple[Source, ...]:
    """The sources of a system, in its order, each from `folder/<kind>/`.

    Raises `UnknownSource` for a kind without a module, `serving.arrays.BadFolder` for a folder that was not fitted.
    """
    return tuple(_load(spec, folder / spec.kind, catalogue) for spec in specs)


def _load(spec: SourceSpec, folder: Path, catalogue: Catalogue) -> Source:
    module = sys.modules.get(f"{__name__}.{spec.kind}")
    if module is None or not hasattr(module, "load"):
        raise UnknownSource(f"no source {spec.kind!r}: add serving/sources/{spec.kind}.py, or correct the system file")
    source: Source = module.load(folder, spec, catalogue)
    return source
