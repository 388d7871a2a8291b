"""What is never answered, and what is left out of one list. Shapes: I items, N ranked candidates."""

from collections.abc import Iterator, Sequence

import numpy as np

from feature_repo.schema import POLICY_FLAGS
from serving.bundle.arrays import Mask, Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Request
from serving.rules.rule import BadRule, Bar, Filter
from serving.rules.slate import Move, Ranked
from serving.rules.specs import NotSeen

_BITS = 7  # of an item's flags: the policy flags, then one a bar that is not a policy flag
SAFETY = 1 << _BITS  # the last: a safety message holds; no list may have the item, whatever bars a system has


class Bars:
    """All bars of a system as bits of every item's flags, so that one look tells whether it may be answered."""

    def __init__(self, bars: Sequence[Bar], catalogue: Catalogue) -> None:
        self.flags = np.array(catalogue.flags)  # (I,) a copy: an item may be recalled while the bundle serves
        self._bits: list[tuple[Bar, int]] = []
        free = iter(range(len(POLICY_FLAGS), _BITS))
        for bar in bars:
            barred, own = bar.bars(catalogue), not bar.policy_flag
            at = next(free, None) if own else POLICY_FLAGS.index(bar.policy_flag)
            if at is None:
                raise BadRule(f"rule {bar.kind}: a system has room for {_BITS - len(POLICY_FLAGS)} bars beside the policy flags: join some")
            if own:
                self.flags[barred] |= np.uint8(1 << at)
            self._bits.append((bar, 1 << at))
        self.bits = int(np.bitwise_or.reduce([SAFETY, *(bit for _, bit in self._bits)]))  # whatever carries one of these is never answered

    def set_policy_flags(self, row: int, flags: int) -> None:
        """The policy flags of one item from now on; bars that are not policy flags hold as before."""
        own = int(self.flags[row]) >> len(POLICY_FLAGS) << len(POLICY_FLAGS)
        self.flags[row] = own | flags

    def permit(self, rows: Rows) -> Mask:
        """(N,) which rows nothing bars."""
        permitted: Mask = (self.flags[rows] & self.bits) == 0
        return permitted

    def moves(self, ranked: Ranked) -> Iterator[Move]:
        """What each bar removed."""
        flags = self.flags.take(ranked.rows)
        for bar, bit in self._bits:
            gone = ranked.rows[(flags & bit) != 0]
            if len(gone):
                yield Move(bar.kind, "removed", tuple(gone.tolist()), "carries the flag" if bar.policy_flag else "is barred")
        gone = ranked.rows[(flags & SAFETY) != 0]
        if len(gone):
            yield Move("safety", "removed", tuple(gone.tolist()), "was recalled, blocked or hidden")


class Filters:
    """The filters of a system; a request that discovers leaves out what the user has had also without the rule."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = tuple(filters)
        self.plain = all(isinstance(one, NotSeen) for one in filters)  # nothing but what the user has had is left out

    def of(self, request: Request) -> tuple[Filter, ...]:
        """Those that hold for a request."""
        seen = any(isinstance(one, NotSeen) for one in self._filters)
        return (*self._filters, NotSeen()) if request.discover and not seen else self._filters

    def keep(self, ranked: Ranked, keep: Mask, request: Request, moves: list[Move]) -> Mask:
        """(N,) which of those kept so far no filter leaves out."""
        for one in self.of(request):
            removed = one.removes(ranked, request)
            if removed.any():
                moves.append(Move(one.kind, "removed", tuple(ranked.rows[keep & removed].tolist()), one.why))
                keep = keep & ~removed
        return keep

    def spare(self, ranked: Ranked, left_out: Mask, request: Request, wanted: int, moves: list[Move]) -> list[int]:
        """Positions of the first `wanted` that filters left out, where too few others are left; never what was had when discovering."""
        if request.discover:
            left_out = left_out & ~ranked.seen
        found = np.flatnonzero(left_out)[:wanted]
        for one in self.of(request):
            back = found[one.removes(ranked, request)[found]]
            if len(back):
                moves.append(Move(one.kind, "gave way", tuple(ranked.rows[back].tolist()), f"too few others: {one.why}"))
        return [int(at) for at in found]
