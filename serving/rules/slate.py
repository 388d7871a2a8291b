"""What goes into the rules and comes out of them.

Shapes: N ranked candidates, k answer length.
"""

from typing import NamedTuple

import msgspec

from serving.bundle.arrays import Floats, Mask, Rows


class Move(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one rule did to some items of one list, also as the exposure log keeps it."""

    rule: str
    what: str  # removed, moved, added, gave way
    rows: tuple[int, ...]
    why: str


class Ranked(NamedTuple):
    """Candidates in the order of the rankers, best first."""

    rows: Rows  # (N,)
    scores: Floats  # (N,) never rising
    seen: Mask  # (N,)


class Arranged(NamedTuple):
    """The answer's items in order, and what the rules did."""

    rows: Rows  # (<= k,)
    scores: Floats  # (<= k,)
    moves: tuple[Move, ...]
