"""Candidate sources: where the pool comes from. One module a kind; its twin in `components/retrieval/` fits what it loads."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from serving.bundle.catalogue import Catalogue
from serving.retrieval.buy_again import BuyAgain
from serving.retrieval.category_promotion import CategoryPromotion
from serving.retrieval.linear import Linear
from serving.retrieval.source import Source
from serving.retrieval.trending import Trending
from serving.retrieval.two_tower import TwoTower
from serving.system import SourceSpec

SOURCES: Mapping[str, type[Source]] = {
    "buy_again": BuyAgain,
    "linear": Linear,
    "two_tower": TwoTower,
    "category_promotion": CategoryPromotion,
    "trending": Trending,
}


class UnknownSource(ValueError):
    """A system file names a source that has no module here."""


def load_sources(specs: Iterable[SourceSpec], folder: Path, catalogue: Catalogue) -> tuple[Source, ...]:
    """The sources of a system, in its order, each from `folder/<kind>/`.

    Raises `UnknownSource` for a kind without a module, `serving.bundle.arrays.BadFolder` for a folder that was not fitted.
    """
    return tuple(_load(spec, folder / spec.kind, catalogue) for spec in specs)


def _load(spec: SourceSpec, folder: Path, catalogue: Catalogue) -> Source:
    kind = SOURCES.get(spec.kind)
    if kind is None:
        raise UnknownSource(f"no source {spec.kind!r}: add serving/retrieval/{spec.kind}.py to SOURCES, or correct the system file")
    return kind.load(folder, spec, catalogue)
