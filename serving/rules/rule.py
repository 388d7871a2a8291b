"""What a rule is: a frozen dataclass of one of six classes, each with the one question the arrangement asks it.

| class    | asks                                   | gives way                                            |
|----------|----------------------------------------|------------------------------------------------------|
| `Bar`    | which items are never answered         | never                                                |
| `Pin`    | which item stands where                | only to a bar                                        |
| `Filter` | which items of this list are left out  | after the caps: what it left out fills a short list  |
| `Cap`    | which group an item is of              | after the floors: what it left out fills the list    |
| `Floor`  | how many new items a page holds        | where the pool holds too few that fit under the caps |
| `Order`  | another score, another order           | first: it only chooses among what the others allow   |

`serving/rules/specs.py` holds the rules there are; one of your own derives from a class here and is named in a system file by
`rule("mypackage.rules:NoAlcohol", ...)`. Shapes: I items, N ranked candidates, k answer length.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Floats, Mask, Rows
from serving.bundle.catalogue import Catalogue
from serving.objectives import GROUPS
from serving.query import Request
from serving.rules.slate import Ranked
from serving.system import Rule


class BadRule(ValueError):
    """A rule of the system file is unknown or names what the catalogue lacks."""


@dataclass(frozen=True)
class Bar(Rule, ABC):
    """Never an item it bars."""

    @property
    def policy_flag(self) -> str:
        """The flag of `feature_repo.schema.POLICY_FLAGS` that bars an item, which may come while a bundle serves; none: `bars` says it."""
        return ""

    @abstractmethod
    def bars(self, catalogue: Catalogue) -> Mask:
        """(I,) the items it bars."""


@dataclass(frozen=True)
class Filter(Rule, ABC):
    """Leaves out items of one list; they come back where too few others are left."""

    @abstractmethod
    def removes(self, ranked: Ranked, request: Request) -> Mask:
        """(N,) the candidates it leaves out."""

    @property
    def why(self) -> str:
        """What is said of those left out."""
        return "left out for this request"


@dataclass(frozen=True)
class Pin(Rule):
    """The item stands at this 0-based position of the first page."""

    item_id: str
    position: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Cap(Rule, ABC):
    """At most `count` items of one group a page."""

    count: int

    @abstractmethod
    def groups(self, catalogue: Catalogue) -> NDArray[np.int32]:
        """(I,) the group of each item; 0: unknown, never counted together."""

    @property
    def why(self) -> str:
        """What is said of those it left out."""
        return f"more than {self.count} of one group"


@dataclass(frozen=True)
class Floor(Rule):
    """At least `count` items of the first page that entered the catalogue within the last days, where the pool holds them."""

    count: int
    newer_than_days: float = field(kw_only=True)

    @property
    def chance(self) -> float:
        """The share of requests it holds for."""
        return 1.0

    def holds(self, request: Request) -> bool:
        """Whether it does for this one: the same answer whenever the same id asks."""
        return drawn(request.request_id, round(1 / self.chance))


class Ordering(Protocol):
    """An order rule made ready for one catalogue. Both keep what they have nothing to say of."""

    def rescore(self, rows: Rows, scores: Floats, request: Request) -> Floats:
        """(N,) the scores after it."""
        ...

    def reorder(self, rows: Rows, scores: Floats, order: NDArray[np.intp], k: int) -> NDArray[np.intp]:
        """Positions in `rows` in their order after it, the same ones as in `order`."""
        ...


@dataclass(frozen=True)
class Order(Rule, ABC):
    """Changes the order; nothing is added or removed."""

    @abstractmethod
    def ready(self, catalogue: Catalogue) -> Ordering:
        """It for one catalogue. Raises `BadRule` where it names what the catalogue lacks."""

    @property
    def why(self) -> str:
        """What is said of those that left the first k by it."""
        return "its order was changed"


def drawn(request_id: str, every: int) -> bool:
    """Whether this request is one of the one in `every`: the same answer whenever the same id asks."""
    return every <= 1 or int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "little") % every == 0


def groups_of(catalogue: Catalogue, name: str) -> NDArray[np.int32]:
    """(I,) codes of one of `GROUPS`."""
    return np.array(catalogue.brand) if name == "brand" else np.ascontiguousarray(catalogue.category[:, GROUPS.index(name)])
