"""The rules there are: what an answer may hold. A system file lists them; `serving/rules/arrange.py` applies them and says what each did.

| rule                      | effect                                                                   | class  |
|---------------------------|--------------------------------------------------------------------------|--------|
| in_stock, not_recalled, allowed | items carrying the flag are removed                                | bar    |
| not_seen                  | items the user has had are removed                                       | filter |
| pin                       | the item stands at a position, whatever its score                        | pin    |
| at_most                   | at most N of one category, department, type or brand                     | cap    |
| at_least, exposure_floor  | at least N items new to the catalogue (always, or in 1 of `every` requests) | floor  |
| boost, diverse            | the order changes, nothing is added or removed                           | order  |

A list longer than one answer (`k > answer_size`) is arranged page by page: every page obeys the caps, what a page leaves out is first
for the next. Items of an unknown category or brand are not counted together.

**When rules conflict, or the pool is too small**, they give way in this order, and the trace says so:

1. order rules: they only choose among what the others allow;
2. floors: met as far as the pool holds new items that fit under the caps;
3. caps: what they left out fills the list, best first;
4. `not_seen`: what the user has had fills the list (never when the request itself says `discover`);
5. pins: only an item barred by a bar, or one the catalogue lacks, is not pinned.

Bars never give way. If the pool still holds fewer than k, the popular, then the static list, then the catalogue in its order fill
up, under the same rules; so an answer is empty only where no item at all is allowed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import POLICY_FLAGS
from serving.bundle.arrays import Mask
from serving.bundle.catalogue import Catalogue
from serving.objectives import GROUPS
from serving.query import Request
from serving.rules.order import Boosting, Diversity
from serving.rules.rule import BadRule, Bar, Cap, Filter, Floor, Order, Pin, groups_of
from serving.rules.slate import Ranked
from serving.system import Rule, named


@dataclass(frozen=True)
class Flagged(Bar):
    """Never an item carrying a policy flag."""

    def bars(self, catalogue: Catalogue) -> Mask:
        if self.policy_flag not in POLICY_FLAGS:
            raise BadRule(f"rule {self.kind}: no policy flag {self.policy_flag!r}: known are {', '.join(POLICY_FLAGS)}")
        return catalogue.flagged(self.policy_flag)


@dataclass(frozen=True)
class InStock(Flagged):
    """Never an item flagged out_of_stock."""

    policy_flag = "out_of_stock"


@dataclass(frozen=True)
class NotRecalled(Flagged):
    """Never an item flagged recalled."""

    policy_flag = "recalled"


@dataclass(frozen=True, kw_only=True)
class Allowed(Flagged):
    """Never an item carrying this policy flag (`feature_repo.schema.POLICY_FLAGS`)."""

    flag: str

    @property
    def policy_flag(self) -> str:
        return self.flag


@dataclass(frozen=True)
class NotSeen(Filter):
    """Leave out what the user has had; gives way when nothing else is left."""

    why = "the user has had it"

    def removes(self, ranked: Ranked, request: Request) -> Mask:
        return ranked.seen


@dataclass(frozen=True)
class AtMost(Cap):
    """At most `count` items of one `per` (one of `GROUPS`) in an answer."""

    per: str = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.count < 1 or self.per not in GROUPS:
            raise ValueError(f"at_most({self.count}, per={self.per!r}): expected a count of 1 or more and one of {', '.join(GROUPS)}")

    def groups(self, catalogue: Catalogue) -> NDArray[np.int32]:
        return groups_of(catalogue, self.per)

    @property
    def why(self) -> str:
        return f"more than {self.count} of one {self.per}"


@dataclass(frozen=True)
class AtLeast(Floor):
    """At least `count` items that entered the catalogue within the last days, where the pool holds them."""


@dataclass(frozen=True)
class ExposureFloor(Floor):
    """Like `at_least`, in one of `every` requests (chosen by the request's id): new items are shown often enough to be judged."""

    every: int = field(kw_only=True)

    @property
    def chance(self) -> float:
        return 1 / max(self.every, 1)


@dataclass(frozen=True)
class Diverse(Order):
    """Maximal marginal relevance (Carbonell, Goldstein 1998) over the best `among`: 0 keeps the order, 1 sees only difference."""

    strength: float = 0.3
    among: int = field(default=50, kw_only=True)
    why = "too like a better one"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"diverse(strength={self.strength}): expected 0 to 1")

    def ready(self, catalogue: Catalogue) -> Diversity:
        return Diversity(self.strength, self.among, np.stack([groups_of(catalogue, name) for name in GROUPS]))


@dataclass(frozen=True)
class Boost(Order):
    """Multiply the score of the named brand's, category's or new items (the conditions given must all hold)."""

    factor: float
    brand: str = field(default="", kw_only=True)
    category: str = field(default="", kw_only=True)
    newer_than_days: float = field(default=0, kw_only=True)
    why = "its score was multiplied"

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(f"boost({self.factor}): expected a factor above 0")

    def ready(self, catalogue: Catalogue) -> Boosting:
        """Its items, the age left to the request. Raises `BadRule` for a name the catalogue lacks."""
        mask = np.ones(len(catalogue), bool)
        if self.brand:
            mask &= groups_of(catalogue, "brand") == self._code(catalogue.brand_names, self.brand)
        if self.category:
            code = self._code(catalogue.category_names, self.category)
            mask &= np.any([groups_of(catalogue, level) == code for level in GROUPS[:3]], axis=0)
        return Boosting(self.factor, self.newer_than_days, mask, np.nan_to_num(np.array(catalogue.created_day), nan=-np.inf))

    def _code(self, names: tuple[str, ...], name: str) -> int:
        if name not in names:
            raise BadRule(f"rule {self.kind}: the catalogue has no {name!r}: write the name as it is in the items table")
        return names.index(name)


# As a system file writes them: rules=(in_stock(), at_most(3, per="category"))
in_stock, not_recalled, allowed, not_seen, pin = InStock, NotRecalled, Allowed, NotSeen, Pin
at_most, at_least, exposure_floor, boost, diverse = AtMost, AtLeast, ExposureFloor, Boost, Diverse
RULES: Mapping[str, type[Rule]] = {
    "in_stock": in_stock, "not_recalled": not_recalled, "allowed": allowed, "not_seen": not_seen, "pin": pin,
    "at_most": at_most, "at_least": at_least, "exposure_floor": exposure_floor, "boost": boost, "diverse": diverse,
}  # fmt: skip
for _kind, _rule in RULES.items():
    _rule.kind = _kind


def rule(kind: str, **settings: Any) -> Rule:
    """The rule of a kind, or of one's own "module:Class", with its settings.

    Raises `BadRule` for one that is unknown, of none of the six classes, or lacks a part; `serving.system.UnknownName` for a wrong path.
    """
    if ":" not in kind and kind not in RULES:
        raise BadRule(f'no rule {kind!r}: known are {", ".join(RULES)}; name one of your own as "module:Class"')
    found = named(kind) if ":" in kind else RULES[kind]
    if not (isinstance(found, type) and issubclass(found, (Bar, Filter, Pin, Cap, Floor, Order))):
        raise BadRule(f"rule {kind!r} is no rule: derive it from Bar, Filter, Pin, Cap, Floor or Order of serving.rules.rule")
    try:
        return found(**settings)
    except TypeError as problem:  # a setting it does not have, or a question it does not answer
        raise BadRule(f"rule {kind!r} cannot be made: {problem}") from problem
