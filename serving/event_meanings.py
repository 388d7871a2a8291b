"""What an event means to a system: liking an item, a hint of it, that it was shown, that it is not wanted, or nothing.

events={"purchase": Positive(), "add_to_cart": Signal(0.5), "view_item": Signal(0.2), "rating": Positive(value="stars", at_least=4),
        "grade": Positive(value="stars", at_least=4, below=Never()), "watch": Positive(value="seconds", usual=300),
        "impression": Shown(), "hide": Never(), "unhide": Again(), "dislike": Negative(),
        "subscribe": Follow(), "remove_from_cart": Ignored()}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from feature_repo.schema import EVENT_TYPES, Worth


@dataclass(frozen=True)
class Positive:
    """Liking the item: learnt from, judged by, and part of the user's history."""

    weight: float = 1.0  # in the history and in learning, beside the other positives
    value: str = ""  # what the events' `value` counts, as people call it: stars, seconds, pieces; named, it weighs the event
    at_least: float | None = None  # of the value; an event with less, or without a value, is no positive
    usual: float | None = None  # the value of which an event weighs `weight`; not said: `at_least`, or 1 without one
    below: "Never | Negative | None" = None  # what an event with less than `at_least` says; one without a value says nothing
    kind: str = field(default="positive", init=False)

    def __post_init__(self) -> None:
        _check_weight("a positive", self.weight)
        if self.below is not None and self.at_least is None:
            raise ValueError(f"a positive with below={self.below} needs at_least=: say what an event must reach to be liked")
        if self.usual is not None and not (self.value and self.usual > 0):
            raise ValueError(
                f"a positive whose usual value is {self.usual:g} needs value= and usual= above 0: say what it counts, as value='seconds'"
            )

    def disappoints(self, value: float) -> bool:
        """Whether an event of that value says what `below` is."""
        return self.below is not None and self.at_least is not None and value < self.at_least

    @property
    def worth(self) -> Worth:
        """How much one such event counts, as `feature_repo` computes it."""
        return Worth(self.weight, (self.usual or self.at_least or 1.0) if self.value else None, self.at_least)


@dataclass(frozen=True)
class Signal:
    """A hint of liking: moves the user's next lists for half a day, is not learnt from."""

    weight: float  # in the history bag, where a positive weighs 1
    kind: str = field(default="signal", init=False)

    def __post_init__(self) -> None:
        _check_weight("a signal", self.weight)


@dataclass(frozen=True)
class Shown:
    """The item was seen in a list, at the position of its context."""

    kind: str = field(default="shown", init=False)


@dataclass(frozen=True)
class Never:
    """The user wants the item gone: no list of theirs holds it, until they take that back (`Again`)."""

    kind: str = field(default="never", init=False)


@dataclass(frozen=True)
class Negative:
    """The user likes the item less: it and its like stand lower in their lists, until they have it again or take it back."""

    kind: str = field(default="negative", init=False)


@dataclass(frozen=True)
class Follow:
    """The user wants what else is of the item's brand, which may be a channel or an author, as it comes: until they take that back."""

    kind: str = field(default="follow", init=False)


@dataclass(frozen=True)
class Again:
    """Takes back what was said of the item before: it is neither gone, nor lowered, nor followed."""

    kind: str = field(default="again", init=False)


@dataclass(frozen=True)
class Ignored:
    """Of no meaning here: counted, and said, nothing else."""

    kind: str = field(default="ignored", init=False)


Meaning = Positive | Signal | Shown | Never | Negative | Follow | Again | Ignored
UNLESS_SAID: Mapping[str, Meaning] = {"impression": Shown(), "hide": Never(), "unhide": Again(), "dislike": Negative()}


def _check_weight(what: str, weight: float) -> None:
    if not 0 < weight <= 10:
        raise ValueError(f"{what} weighs {weight:g}, expected more than 0 and at most 10; what means nothing is Ignored()")


def with_usual(events: Mapping[str, Meaning]) -> dict[str, Meaning]:
    """The table with what a hide, a dislike and an impression mean wherever it does not say otherwise."""
    return {**events, **{name: meaning for name, meaning in UNLESS_SAID.items() if name not in events}}


def positives_of(events: Mapping[str, Meaning]) -> tuple[str, ...]:
    """The types that count as liking an item, in the table's order."""
    return tuple(name for name, meaning in events.items() if isinstance(meaning, Positive))


def signals_of(events: Mapping[str, Meaning]) -> dict[str, float]:
    """The weight of each hint."""
    return {name: meaning.weight for name, meaning in events.items() if isinstance(meaning, Signal)}


def worths_of(events: Mapping[str, Meaning]) -> dict[str, Worth]:
    """How much an event of each positive type counts."""
    return {name: meaning.worth for name, meaning in events.items() if isinstance(meaning, Positive)}


def least_values(events: Mapping[str, Meaning]) -> dict[str, float]:
    """The positives that need a value, and the least of it."""
    return {name: meaning.at_least for name, meaning in events.items() if isinstance(meaning, Positive) and meaning.at_least is not None}


def types_of(events: Mapping[str, Meaning]) -> tuple[str, ...]:
    """The types an event may be of: the schema's, and those the table names itself."""
    return (*EVENT_TYPES, *(name for name in events if name not in EVENT_TYPES))


def type_code(name: str) -> int:
    """A 32-bit name of an event type: what states keep in place of it, the same under every system and release."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little")


def check_codes(names: tuple[str, ...]) -> None:
    """Raise `ValueError` where two types have the same code: one of the two has to be called otherwise."""
    known: dict[int, str] = {}
    for name in names:
        other = known.setdefault(type_code(name), name)
        if other != name:
            raise ValueError(f"event types {other!r} and {name!r} cannot be told apart in users' states: give one of them another name")
