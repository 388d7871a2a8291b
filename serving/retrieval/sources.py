"""Candidate sources: where the pool comes from. One module a kind; its twin (`components/retrieval/twins.py`) fits what it loads.

A system file may also name a class of one's own, "mypackage.sources:Session", that fills in `serving.retrieval.source.Source`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from serving.bundle.catalogue import Catalogue
from serving.retrieval.arrivals import Arrivals
from serving.retrieval.buy_again import BuyAgain
from serving.retrieval.category_promotion import CategoryPromotion
from serving.retrieval.followed import Followed
from serving.retrieval.linear import Linear
from serving.retrieval.sessions import Sessions
from serving.retrieval.source import Source
from serving.retrieval.trending import Trending
from serving.retrieval.two_tower import TwoTower
from serving.system import SourceSpec, named

SOURCES: Mapping[str, type[Source]] = {
    "arrivals": Arrivals,
    "buy_again": BuyAgain,
    "linear": Linear,
    "two_tower": TwoTower,
    "category_promotion": CategoryPromotion,
    "trending": Trending,
    "sessions": Sessions,
    "followed": Followed,
}
LEARNT = "fusion.json"  # beside a source's arrays: its weights in the fused rank
PARTS = ("load", "retrieve", "reason", "with_new_items")  # of the interface, beside `spec`


class UnknownSource(ValueError):
    """A system file names a source that has no module here, or one that lacks a part of the interface."""


def load_sources(specs: Iterable[SourceSpec], folder: Path, catalogue: Catalogue) -> tuple[Source, ...]:
    """The sources of a system, in its order, each from `folder/<spec.folder>/`.

    Raises `UnknownSource` for a kind without a module or with half an interface, `UnknownName` for a path that names nothing,
    `serving.bundle.arrays.BadFolder` for a folder that was not fitted.
    """
    return tuple(source_class(spec.kind).load(folder / spec.folder, _weighed(spec, folder / spec.folder), catalogue) for spec in specs)


def _weighed(spec: SourceSpec, folder: Path) -> SourceSpec:
    """The source with the say that was learnt for it, where it was (`components/retrieval/weights.py`)."""
    file = folder / LEARNT
    return replace(spec, settings={**spec.settings, **json.loads(file.read_text())}) if file.is_file() else spec


def source_class(kind: str) -> type[Source]:
    """The class of a kind, or of the "module:Class" that names one."""
    if ":" not in kind:
        if kind not in SOURCES:
            raise UnknownSource(f'no source {kind!r}: known are {", ".join(SOURCES)}; name one of your own as "module:Class"')
        return SOURCES[kind]
    own: type[Source] = named(kind)
    lacking = [part for part in PARTS if not callable(getattr(own, part, None))]
    if lacking:
        raise UnknownSource(f"source {kind!r} lacks {', '.join(lacking)}: fill in all of serving.retrieval.source.Source")
    return own
