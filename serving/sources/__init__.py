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
from serving.system import SourceSpec, Value

# A submodule's first import binds its name in the package: all are imported before the functions of the same names are defined.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


# The defaults of `weight`, `discover_weight` and `offset` (see `serving/fusion.py`) were chosen on the choosing week of quality.md.
# With one weight and offset for all, NDCG@10 over all items falls from .32 to .25: the history must be sharp, the others flat.


def _spec(kind: str, share: float, weight: float, discover_weight: float, offset: float, **settings: Value) -> SourceSpec:
    return SourceSpec(kind, share, {"weight": weight, "discover_weight": discover_weight, "offset": offset, **settings})


def buy_again(
    *, share: float, tau_days: float = 90, weight: float = 0.6, discover_weight: float = 0.0, offset: float = 10.0
) -> SourceSpec:  # fmt: skip
    """What the user has had, by time-decayed counts. `weight` in the fused rank, `discover_weight` where only new items are asked for."""
    return _spec("buy_again", share, weight, discover_weight, offset, tau_days=tau_days)


def linear(
    *, share: float, neighbours: int = 200, weight: float = 0.1, discover_weight: float = 0.03, offset: float = 10.0
) -> SourceSpec:  # fmt: skip
    """Linear item-item (EASE, Steck 2019) on time-decayed log counts, the top neighbours of each item kept."""
    return _spec("linear", share, weight, discover_weight, offset, neighbours=neighbours)


def two_tower(
    *, share: float, dimensions: int = 64, weight: float = 0.15, discover_weight: float = 0.15, offset: float = 60.0
) -> SourceSpec:  # fmt: skip
    """Nearest items to the user's vector; the item tower reads content, so an item never sold has a vector too."""
    return _spec("two_tower", share, weight, discover_weight, offset, dimensions=dimensions)


def category_promotion(*, share: float, weight: float = 0.3, discover_weight: float = 0.2, offset: float = 60.0) -> SourceSpec:
    """Category affinity x popularity x promotion x store."""
    return _spec("category_promotion", share, weight, discover_weight, offset)


def trending(*, share: float, days: float = 28, weight: float = 0.02, discover_weight: float = 0.01, offset: float = 60.0) -> SourceSpec:
    """What many users had lately."""
    return _spec("trending", share, weight, discover_weight, offset, days=days)


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
