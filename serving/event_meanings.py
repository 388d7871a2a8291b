"""What an event means to a system: liking an item, a hint of it, that it was shown, that it is not wanted, or nothing.

events={"purchase": Positive(), "add_to_cart": Signal(0.5), "view_item": Signal(0.2), "rating": Positive(value="stars", at_least=4),
        "impression": Shown(), "hide": Never(), "dislike": Negative(), "remove_from_cart": Ignored()}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Positive:
    """Liking the item: learnt from, judged by, and part of the user's history."""

    weight: float = 1.0
    value: str = ""  # what the events' `value` counts, as people call it: stars, seconds, pieces
    at_least: float | None = None  # of the value; an event with less, or without a value, is no positive
    kind: str = field(default="positive", init=False)

    def __post_init__(self) -> None:
        if self.weight != 1.0:
            raise ValueError(
                f"a positive weighs {self.weight:g}, expected 1: positives count alike; make the weaker one a Signal({self.weight:g})"
            )


@dataclass(frozen=True)
class Signal:
    """A hint of liking: moves the user's next lists for half a day, is not learnt from."""

    weight: float  # in the history bag, where a positive weighs 1
    kind: str = field(default="signal", init=False)

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 10:
            raise ValueError(f"a signal weighs {self.weight:g}, expected more than 0 and at most 10; what means nothing is Ignored()")


@dataclass(frozen=True)
class Shown:
    """The item was seen in a list: counted, not yet learnt from."""

    kind: str = field(default="shown", init=False)


@dataclass(frozen=True)
class Never:
    """The user wants the item gone: no positive and no hint."""

    kind: str = field(default="never", init=False)


@dataclass(frozen=True)
class Negative:
    """The user likes the item less: no positive and no hint."""

    kind: str = field(default="negative", init=False)


@dataclass(frozen=True)
class Ignored:
    """Of no meaning here: counted, and said, nothing else."""

    kind: str = field(default="ignored", init=False)


Meaning = Positive | Signal | Shown | Never | Negative | Ignored


def positives_of(events: Mapping[str, Meaning]) -> tuple[str, ...]:
    """The types that count as liking an item, in the table's order."""
    return tuple(name for name, meaning in events.items() if isinstance(meaning, Positive))


def signals_of(events: Mapping[str, Meaning]) -> dict[str, float]:
    """The weight of each hint."""
    return {name: meaning.weight for name, meaning in events.items() if isinstance(meaning, Signal)}


def least_values(events: Mapping[str, Meaning]) -> dict[str, float]:
    """The positives that need a value, and the least of it."""
    return {name: meaning.at_least for name, meaning in events.items() if isinstance(meaning, Positive) and meaning.at_least is not None}
