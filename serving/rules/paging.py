"""Page after page under caps, the first with its pins and its floors. Shapes: N ranked candidates, I items, k answer length."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.bundle.arrays import Rows
from serving.bundle.catalogue import Catalogue
from serving.query import Request
from serving.rules.newer import Newer
from serving.rules.page import Capped, exchange, fill_page
from serving.rules.rule import Cap, Floor
from serving.rules.slate import Move, Ranked

_NEAR = 128  # of the list that are looked at first for one page
Positions = NDArray[np.intp]


class Pages:
    """The caps and floors of a system, ready for one catalogue."""

    def __init__(self, caps: Sequence[Cap], floors: Sequence[Floor], catalogue: Catalogue, size: int) -> None:
        self.caps, self.floors, self.size = tuple(caps), tuple(floors), size
        self.columns = tuple((np.ascontiguousarray(cap.groups(catalogue), np.int32), cap.count) for cap in caps)  # (I,) groups, most of one
        self.newer = Newer(catalogue.created_day)

    def holding(self, request: Request) -> list[Floor]:
        """The floors that hold for this request."""
        return [floor for floor in self.floors if floor.holds(request)]

    def fill(self, ranked: Ranked, order: Positions, pinned: list[tuple[int, int]], request: Request, moves: list[Move]) -> list[int]:
        """Positions in `ranked`. For one page the first of the list and the new items are enough, unless they turn out too few."""
        near = self._window(ranked, order, request) if request.k <= self.size and len(order) > _NEAR else order
        noted: list[Move] = []
        chosen = self._all(ranked, near, pinned, request, noted)
        kinds = {cap.kind for cap in self.caps}
        if len(near) < len(order) and (len(chosen) < request.k or any(m.rule in kinds and m.what == "gave way" for m in noted)):
            noted = []
            chosen = self._all(ranked, order, pinned, request, noted)
        moves += noted
        return chosen

    def _window(self, ranked: Ranked, order: Positions, request: Request) -> Positions:
        """The first of the order, and those after it that a floor may need."""
        wanted = np.zeros(len(order), bool)
        rows = ranked.rows.take(order)
        for floor in self.floors:
            wanted |= self.newer.of(rows, floor.newer_than_days, request)
        wanted[:_NEAR] = True
        return order[wanted]

    def _all(self, ranked: Ranked, order: Positions, pinned: list[tuple[int, int]], request: Request, moves: list[Move]) -> list[int]:
        """Positions in `ranked` of all pages. Within, an item is known by its place in `local`: the order, then the pins."""
        reserved = [index for _, index in pinned]
        local = np.concatenate((order[~np.isin(order, reserved)], reserved)).astype(np.intp) if reserved else order
        rows = ranked.rows[local]
        left = list(range(len(local) - len(reserved)))
        capped = Capped([column.take(rows).tolist() for column, _ in self.columns], [count for _, count in self.columns])
        at = [(position, len(left) + number) for number, (position, _) in enumerate(pinned)]
        chosen: list[int] = []
        while len(chosen) < request.k and (left or (at and not chosen)):
            size = min(self.size, request.k - len(chosen))
            pins = [] if chosen else [(position, index) for position, index in at if position < size]
            beside = [index for _, index in pins]
            page, left, skipped, over = fill_page(left, capped, size, beside)
            if not chosen:
                moves += self._skips(rows, skipped, over)
                page, left = self._meet_floors(rows, page, left, capped, beside, request, moves)
            for position, index in pins:
                page.insert(position, index)
                moves.append(Move("pin", "moved", (int(rows[index]),), f"pinned at {position}"))
            chosen += page
        return local[chosen].tolist() if chosen else []

    def _skips(self, rows: Rows, skipped: list[tuple[int, int]], over: list[int]) -> Iterable[Move]:
        """What the caps left out, and what was taken against them."""
        gave_way: dict[str, list[int]] = {}
        for at, cap in enumerate(self.caps):
            gone = tuple(int(rows[index]) for index, by in skipped if by == at and index not in over)
            if gone:
                yield skip(cap, gone)
        for index, by in skipped:
            if index in over:
                gave_way.setdefault(self.caps[by].kind, []).append(int(rows[index]))
        for kind, taken in gave_way.items():
            yield Move(kind, "gave way", tuple(taken), "too few items fit under the caps")

    def _meet_floors(
        self, rows: Rows, page: list[int], left: list[int], capped: Capped, pinned: Sequence[int], request: Request, moves: list[Move]
    ) -> tuple[list[int], list[int]]:
        """Replace the worst old items of the page by the best new ones that fit under the caps."""
        for floor in self.holding(request):
            whole, new = [*page, *pinned], self.newer.of(rows, floor.newer_than_days, request).tolist()
            lacking = min(floor.count, len(whole)) - sum(new[index] for index in whole)
            if lacking <= 0:
                continue
            old = [index for index in page if not new[index]]
            fresh = [index for index in left if new[index]]
            page, left, added = exchange(page, left, old, fresh, lacking, capped, pinned)
            moves += floor_moves(floor, tuple(rows[added].tolist()), lacking - len(added))
        return page, left


def skip(cap: Cap, rows: tuple[int, ...]) -> Move:
    """What a cap left out."""
    return Move(cap.kind, "moved", rows, cap.why)


def floor_moves(floor: Floor, added: tuple[int, ...], lacking: int) -> Iterator[Move]:
    """What a floor brought in, and what it could not."""
    if added:
        yield Move(floor.kind, "added", added, f"newer than {floor.newer_than_days:g} days")
    if lacking > 0:
        yield Move(floor.kind, "gave way", (), f"{lacking} new items short")
