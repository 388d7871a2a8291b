"""What was shown to whom, in some 200 bytes an answer: what learning joins events to and drift is measured on.

Every answer leaves one such record; the full one (`serving/exposures/record.py`) is kept of a sample. Shapes: k shown items.
"""

from hashlib import blake2b
from typing import Any

import msgspec

from serving.query import Answer
from serving.rules.rule import Floor
from serving.system import System


class ShownList(msgspec.Struct, frozen=True, array_like=True):
    """One answer, as its bytes lie in the log. `sources` are bits: bit s is the s-th source of the release's `kinds`."""

    request_id: str
    user_key: int  # `user_key(user_id)`; 0 where the user consented to nothing personal
    day: float  # days since 1970, by the server's clock
    rung: str
    items: tuple[str, ...]  # (k,) ids, as they stood: the n-th had position n, from 0
    sources: tuple[int, ...] = ()  # (k,) which sources returned each; 0 for one that filled up
    propensities: tuple[float, ...] = ()  # (k,) how likely each was to be shown, given the rules that draw lots; empty: all 1
    propensity: float = 1.0  # of the whole arrangement
    arm: str | None = None
    place: str = ""
    discover: bool = False
    about: str = ""  # of a list that is not the user's own: "similar to ITEM", "popular"; of one restricted: "only some"


class Impression(msgspec.Struct, frozen=True):
    """One item of one answer, as a reader gets it."""

    item_id: str
    position: int
    sources: tuple[str, ...]
    propensity: float


class Exposure(msgspec.Struct, frozen=True):
    """One answer, as a reader gets it. `seq` goes on within one log: where the next reading starts."""

    seq: int
    request_id: str
    user_key: int
    day: float
    bundle: str  # digest
    rung: str
    arm: str | None
    propensity: float
    place: str
    discover: bool
    items: tuple[Impression, ...]
    about: str = ""


def user_key(user_id: str) -> int:
    """A 64-bit name of a user: exposures hold it in place of the id, and whoever knows the id finds them. 0 is nobody's."""
    return int.from_bytes(blake2b(user_id.encode(), digest_size=8).digest(), "little") or 1


def shown_of(answer: Answer, system: System) -> ShownList:
    """The slim record of an answer. Raises `ValueError` for an answer without its trace."""
    trace = answer.trace
    if trace is None:
        raise ValueError(f"answer {answer.request_id} has no trace: only answers of this process's recommender are logged")
    request, state = trace.query.request, trace.query.state
    bit = {kind: 1 << at for at, kind in enumerate(system.kinds)}
    lots, whole = propensities(answer, system)
    return ShownList(
        answer.request_id,
        0 if state.consent == "minimal" or not request.user_id else user_key(request.user_id),
        request.at_day,
        trace.rung,
        tuple([entry.item_id for entry in answer.items]),
        tuple([sum([bit.get(kind, 0) for kind in entry.sources]) for entry in answer.items]),
        lots,
        whole,
        answer.arm,
        request.place,
        request.discover,
        request.about,
    )


def propensities(answer: Answer, system: System) -> tuple[tuple[float, ...], float]:
    """How likely each shown item was (empty: all certain), and the whole arrangement, under the rules that draw lots.

    An item that a floor drawn in one of `every` requests brought in was shown with 1 / every; what stood there anyway is certain.
    """
    whole, lots = 1.0, [1.0] * len(answer.items)
    for rule in system.rules if answer.trace.query.request.personal else ():
        if not isinstance(rule, Floor) or rule.chance == 1:
            continue
        added = {row for move in answer.trace.moves if move.rule == rule.kind and move.what == "added" for row in move.rows}
        whole *= rule.chance if added else 1 - rule.chance
        lots = [lot * rule.chance if entry.row in added else lot for lot, entry in zip(lots, answer.items, strict=True)]
    return (tuple(lots) if any(lot < 1 for lot in lots) else ()), whole


def exposure(seq: int, shown: ShownList, bundle: str, kinds: tuple[str, ...]) -> Exposure:
    """A record with its names."""
    count = len(shown.items)
    lots = shown.propensities or (1.0,) * count
    items = tuple(
        Impression(item, at, tuple([kind for bit, kind in enumerate(kinds) if bits >> bit & 1]), lot)
        for at, (item, bits, lot) in enumerate(zip(shown.items, shown.sources or (0,) * count, lots, strict=True))
    )
    when = (seq, shown.request_id, shown.user_key, shown.day)
    return Exposure(*when, bundle, shown.rung, shown.arm, shown.propensity, shown.place, shown.discover, items, shown.about)


def story(found: Exposure) -> dict[str, Any]:
    """What can be told of an answer of which no full record was kept."""
    return {
        "request_id": found.request_id,
        "user_id": None,
        "at_day": found.day,
        "bundle": found.bundle,
        "rung": found.rung,
        "degraded": None if found.rung == "full" else {"rung": found.rung},
        "arm": found.arm,
        "propensity": found.propensity,
        "note": "only what was shown is kept of this answer: full records are a sample, see --exposures-sample",
        "rules": [],
        "items": [
            {"position": one.position, "item_id": one.item_id, "score": None, "sources": list(one.sources), "reason": ""}
            for one in found.items
        ],
    }
