"""What a system's lists are to bring about: its heads by name, each with what counts, how it is learnt, and what it weighs in the score.

objectives={"repeat": Objective("again positive", 0.7), "discover": Objective("first positive", 0.3, listwise=0.3)}
objectives={"watch": Objective("watch", 0.5, loss="weighted", usual=300), "click": Objective("click", 0.2),
            "satisfaction": Objective("like or survey >= 4", 0.2), "share": Objective("share", 0.1)}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

Loss = Literal["log-loss", "weighted"]
Asked = Literal["", "first", "again"]
GROUPS = ("department", "category", "type", "brand")  # levels 0, 1, 2 of the category path, and the brand
POSITIVE = "positive"  # in a label: any event that the system's table calls so, at its worth
_EVENT = re.compile(r"(?P<kind>\S+?)(?:\s*>=\s*(?P<least>\S+))?")


class BadObjective(ValueError):
    """A head asks for what cannot be learnt or weighed."""


@dataclass(frozen=True)
class LabelEvent:
    """Events of one type, of a value of at least so much."""

    kind: str  # an event type, or `POSITIVE`
    at_least: float | None = None


@dataclass(frozen=True)
class Objective:
    """One head. `label` counts what a user does with an item in the days of the horizon:

        [first|again] EVENT [>= VALUE] [or EVENT [>= VALUE] ...]

    EVENT is an event type or `positive`; VALUE is held against the event's `value`. `first` asks it of items the user had not had,
    `again` of those he had; the head says nothing of the others and adds nothing to their score.
    """

    label: str
    weight: float  # in the score: times the head's probability, or its expected value
    loss: Loss = "log-loss"  # "weighted": the head learns the expected value (seconds, stars), by weighted logistic loss
    usual: float = 1.0  # the value that counts as 1 under "weighted"; of `positive` the events table says it
    listwise: float = 0.0  # weight of a softmax over the query's list, beside the loss
    loss_weight: float = 1.0  # of the head's loss beside the other heads'

    def __post_init__(self) -> None:
        if self.loss not in get_args(Loss):
            raise BadObjective(f"objective {self.label!r}: loss is {self.loss!r}, expected one of {', '.join(map(repr, get_args(Loss)))}")
        for name in ("weight", "listwise", "loss_weight"):
            _check(self.label, name, getattr(self, name), 0 <= getattr(self, name) < float("inf"), "a number of at least 0")
        _check(self.label, "usual", self.usual, 0 < self.usual < float("inf"), "a number above 0")
        assert self.counted

    @property
    def asked(self) -> Asked:
        """Of which items: those not had before (`first`), had before (`again`), or all."""
        word = self.label.split(maxsplit=1)[0] if self.label.strip() else ""
        return "first" if word == "first" else "again" if word == "again" else ""

    @cached_property
    def counted(self) -> tuple[LabelEvent, ...]:
        """The events any one of which counts."""
        told = self.label.strip().removeprefix(self.asked).strip()
        return tuple(self._event(part.strip()) for part in re.split(r"\s+or\s+", told))

    def _event(self, text: str) -> LabelEvent:
        found = _EVENT.fullmatch(text)
        if not found:
            raise BadObjective(f"objective {self.label!r}: {text!r} is no event: write [first|again] EVENT [>= VALUE] [or EVENT ...]")
        try:
            least = float(found["least"]) if found["least"] else None
        except ValueError:
            raise BadObjective(f"objective {self.label!r}: {found['least']!r} is no value: write EVENT >= 4") from None
        _check(self.label, "value", least or 0.0, abs(least or 0.0) < float("inf"), "a finite number")
        return LabelEvent(found["kind"], least)


@dataclass(frozen=True)
class DiversityTerm:
    """How much the rankers' loss minds that what they put first is alike (`components/ranking/diversity.py`)."""

    weight: float  # beside the heads' `loss_weight`
    per: str = "category"  # of which items are alike: department, category, type or brand

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise BadObjective(f"diversity has the weight {self.weight:g}, expected a number of at least 0: correct it in the system file")
        if self.per not in GROUPS:
            raise BadObjective(f"diversity is asked per {self.per!r}, expected one of {', '.join(GROUPS)}: correct it in the system file")


def _check(label: str, name: str, value: float, right: bool, expected: str) -> None:
    if not right:
        raise BadObjective(f"objective {label!r}: {name} is {value:g}, expected {expected}: correct it in the system file")


def check_objectives(objectives: Mapping[str, Objective], types: Sequence[str]) -> None:
    """Raise `BadObjective` where nothing is asked for, nothing weighs, or an event is none of `types`."""
    if not objectives or not any(one.weight for one in objectives.values()):
        raise BadObjective("objectives names no head of a weight above 0: there is nothing to order a list by; name one, as Objective(...)")
    for name, one in objectives.items():
        for counted in one.counted:
            if counted.kind not in (POSITIVE, *types):
                known = ", ".join((POSITIVE, *types))
                raise BadObjective(f"objective {name}: no event is of type {counted.kind!r}: name it in `events`, or one of {known}")


def as_settings(objectives: Mapping[str, Objective]) -> list[dict[str, Any]]:
    """As bundle.json keeps them: in the order of the models' heads."""
    return [{"name": name, **asdict(one)} for name, one in objectives.items()]


def from_settings(told: Any) -> dict[str, Objective]:
    """What `as_settings` told. The first bundles said weights alone, of two heads."""
    if isinstance(told, Mapping):
        return {name: Objective(f"{asked} {POSITIVE}", told.get(name, 1.0)) for name, asked in (("repeat", "again"), ("discover", "first"))}
    return {one["name"]: Objective(**{name: value for name, value in one.items() if name != "name"}) for one in told}
