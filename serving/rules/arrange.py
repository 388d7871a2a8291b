"""From ranked candidates to an answer that obeys the rules; `serving/rules/specs.py` says what they are and how they give way.

`Rules` is a system's rules made ready for one catalogue, by class: bars and filters (`bars`), order (`order`), pages (`paging`). All of it
is pure: the same ranked list in, the same arrangement out. Shapes: N ranked candidates, I items, k answer length.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Mask, Rows
from serving.bundle.catalogue import Catalogue
from serving.native import kernel
from serving.query import Request
from serving.rules.bars import Bars, Filters
from serving.rules.paging import Pages, floor_moves, skip
from serving.rules.rule import BadRule, Bar, Cap, Filter, Floor, Order, Pin
from serving.rules.slate import Arranged, Move, Ranked
from serving.system import Rule

_NONE = np.empty(0, np.int32)


class Rules:
    """The rules of a system, ready for one catalogue. Raises `BadRule` naming the rule."""

    def __init__(self, rules: Sequence[Rule], catalogue: Catalogue, page: int) -> None:
        classless = [rule for rule in rules if not isinstance(rule, (Bar, Filter, Pin, Cap, Floor, Order))]
        if classless:
            raise BadRule(
                f"no rule {classless[0]!r}: expected one of serving.rules.specs, or one derived from a class of serving.rules.rule"
            )
        self.page = page
        self._bars = Bars([rule for rule in rules if isinstance(rule, Bar)], catalogue)
        self.filters = Filters([rule for rule in rules if isinstance(rule, Filter)])
        caps, floors = [rule for rule in rules if isinstance(rule, Cap)], [rule for rule in rules if isinstance(rule, Floor)]
        self.pages = Pages(caps, floors, catalogue, page)
        orders = [rule for rule in rules if isinstance(rule, Order)]
        self._orders = [(rule, rule.ready(catalogue)) for rule in orders]
        pins = [(rule.position, catalogue.row_of(rule.item_id)) for rule in rules if isinstance(rule, Pin)]
        self._pins = sorted((position, row) for position, row in pins if row >= 0)
        self._plain = not (self._orders or self._pins) and self.filters.plain

    @property
    def flags(self) -> NDArray[np.uint8]:
        """(I,) of every item: what may bar it, bit by bit."""
        return self._bars.flags

    @property
    def hard_bits(self) -> int:
        """Whatever carries one of these flags is never answered."""
        return self._bars.bits

    @property
    def pins(self) -> bool:
        """Whether an item may come into a list that was not in it."""
        return bool(self._pins)

    def set_policy_flags(self, row: int, flags: int) -> None:
        """The policy flags of one item from now on."""
        self._bars.set_policy_flags(row, flags)

    def permits(self, rows: Rows) -> Mask:
        """Which rows no bar holds back: (N,)."""
        return self._bars.permit(rows)

    def arrange(self, ranked: Ranked, request: Request, hidden: Rows = _NONE) -> Arranged:
        """The first `request.k` items under the rules; fewer only where the ranked items that no hard rule bars are fewer.

        `hidden`: rows the user never wants to see again. They are as if they were not there, pinned or not.
        """
        if len(hidden):
            return self._without(ranked, request, hidden)
        plain = self._first_page(ranked, request) if self._plain and request.k <= self.page else None
        return plain if plain is not None else self._arranged(ranked, request)

    def _without(self, ranked: Ranked, request: Request, hidden: Rows) -> Arranged:
        ranked = self._with_pins(ranked)
        gone = np.isin(ranked.rows, hidden)
        arranged = self._arranged(Ranked(ranked.rows[~gone], ranked.scores[~gone], ranked.seen[~gone]), request, hidden)
        if not gone.any():
            return arranged
        move = Move("hidden", "removed", tuple(ranked.rows[gone].tolist()), "the user hid it")
        return arranged._replace(moves=(move, *arranged.moves))

    def barred_only(self, ranked: Ranked, request: Request, hidden: Rows = _NONE) -> Arranged:
        """The first `request.k` that no bar holds back, and nothing more: what is left where arranging fails."""
        permitted = self.permits(ranked.rows) & ~np.isin(ranked.rows, hidden)
        at = np.flatnonzero(permitted & ~ranked.seen if request.discover else permitted)[: request.k]
        return Arranged(ranked.rows[at], ranked.scores[at], ())

    def _first_page(self, ranked: Ranked, request: Request) -> Arranged | None:
        """What `_arranged` gives where the kernel can tell: one page, filled from the first of the list, nothing barred."""
        without = ranked.seen if self.filters.of(request) and ranked.seen.any() else None
        floors = self.pages.holding(request)
        columns = tuple((self.pages.newer.items(floor.newer_than_days, request), floor.count) for floor in floors)
        found = kernel.first_page(
            ranked.rows, np.ascontiguousarray(ranked.scores), without, self.flags, self.hard_bits, self.pages.columns, columns, request.k
        )
        if found is None:
            return None
        rows, scores, skipped, met = found
        moves = [] if without is None else [Move("not_seen", "removed", tuple(ranked.rows[without].tolist()), "the user has had it")]
        moves += [skip(cap, gone) for cap, gone in zip(self.pages.caps, skipped, strict=True) if gone]
        for floor, (added, lacking) in zip(floors, met, strict=True):
            moves += floor_moves(floor, added, lacking)
        return Arranged(rows, scores, tuple(moves))

    def _arranged(self, ranked: Ranked, request: Request, hidden: Rows = _NONE) -> Arranged:
        ranked = ranked if len(hidden) else self._with_pins(ranked)
        permitted = self.permits(ranked.rows)
        moves = [] if permitted.all() else [*self._bars.moves(ranked)]
        keep = self.filters.keep(ranked, permitted, request, moves)  # (N,)
        order = self._order(ranked, keep.nonzero()[0], request, moves)
        chosen = self.pages.fill(ranked, order, self._pinned(ranked, permitted), request, moves)
        if len(chosen) < request.k:
            chosen = [*chosen, *self.filters.spare(ranked, permitted & ~keep, request, request.k - len(chosen), moves)]
        at = np.array(chosen[: request.k], np.intp)
        return Arranged(ranked.rows[at], ranked.scores[at], tuple(moves))

    def _with_pins(self, ranked: Ranked) -> Ranked:
        """Pinned items the rankers left out join at the end, with the lowest score."""
        missing = [row for _, row in self._pins if not np.any(ranked.rows == row)]
        if not missing:
            return ranked
        lowest = ranked.scores[-1] if len(ranked.scores) else 0.0
        return Ranked(
            np.append(ranked.rows, np.array(missing, np.int32)),
            np.append(ranked.scores, np.full(len(missing), lowest, np.float32)),
            np.append(ranked.seen, np.zeros(len(missing), bool)),
        )

    def _pinned(self, ranked: Ranked, permitted: Mask) -> list[tuple[int, int]]:
        """(position, position in `ranked`) of each pin that no bar holds back. A pin outranks filters."""
        at = [(position, int(found[0])) for position, row in self._pins if len(found := np.flatnonzero(ranked.rows == row))]
        return [(position, index) for position, index in at if permitted[index]]

    def _order(self, ranked: Ranked, order: NDArray[np.intp], request: Request, moves: list[Move]) -> NDArray[np.intp]:
        """Positions in the order after all rescoring, then after each reordering."""
        scores, rescored = ranked.scores, []
        for rule, ready in self._orders:
            changed = ready.rescore(ranked.rows, scores, request)
            if changed is not scores:
                scores = changed
                rescored.append(rule)
        if rescored:
            before, order = order, order[np.argsort(-scores[order], kind="stable")]
            moves += _moved(rescored, ranked, before, order, request.k)
        for rule, ready in self._orders:
            before, order = order, ready.reorder(ranked.rows, scores, order, request.k)
            moves += _moved([rule], ranked, before, order, request.k)
        return order


def _moved(rules: list[Order], ranked: Ranked, before: NDArray[np.intp], after: NDArray[np.intp], k: int) -> list[Move]:
    """Those that left the first k by a reordering."""
    gone = np.setdiff1d(before[:k], after[:k]) if before is not after else before[:0]
    names = ", ".join(dict.fromkeys(rule.kind for rule in rules))
    return [Move(names, "moved", tuple(ranked.rows[gone].tolist()), rules[0].why)] if len(gone) else []
