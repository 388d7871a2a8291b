"""From ranked candidates to an answer that obeys the rules; `serving/rules/specs.py` says what they are and how they give way.

`Rules` is a system's rules made ready for one catalogue. All of it is pure: the same ranked list in, the same arrangement out.
Shapes: N ranked candidates, I items, k answer length.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import POLICY_FLAGS
from serving.bundle.arrays import Floats, Mask, Rows
from serving.bundle.catalogue import Catalogue
from serving.native import kernel
from serving.query import Request
from serving.rules.diversity import marginal_order
from serving.rules.page import Capped, exchange, fill_page
from serving.rules.slate import Arranged, Move, Ranked
from serving.rules.specs import GROUPS
from serving.system import RuleSpec

_FLAG_OF = {"in_stock": "out_of_stock", "not_recalled": "recalled"}
_NEAR = 128  # of the list that are looked at first for one page
KINDS = (*_FLAG_OF, "allowed", "not_seen", "pin", "at_most", "at_least", "exposure_floor", "boost", "diverse")


class BadRule(ValueError):
    """A rule of the system file is unknown or names what the catalogue lacks."""


class Rules:
    """The rules of a system, ready for one catalogue. Raises `BadRule` naming the rule."""

    def __init__(self, specs: Sequence[RuleSpec], catalogue: Catalogue, page: int) -> None:
        unknown = [spec.kind for spec in specs if spec.kind not in KINDS]
        if unknown:
            raise BadRule(f"no rule {unknown[0]!r}: known are {', '.join(KINDS)}")
        self.page = page
        self._groups = {name: np.ascontiguousarray(catalogue.category[:, level]) for level, name in enumerate(GROUPS[:3])}
        self._groups["brand"] = np.array(catalogue.brand)
        self._created = np.nan_to_num(np.array(catalogue.created_day), nan=-np.inf)  # (I,)
        self._created_sorted = np.sort(self._created)
        self._newer: dict[float, tuple[float, float, Mask]] = {}  # days -> the moments between which these are the newer ones
        self.flags = np.array(catalogue.flags)  # (I,) a copy: an item may be recalled while the bundle serves
        self._hard = [(spec.kind, self._bit(spec)) for spec in specs if spec.kind in _FLAG_OF or spec.kind == "allowed"]
        self.hard_bits = int(np.bitwise_or.reduce([bit for _, bit in self._hard] or [0]))  # whatever carries one of these is never answered
        self._not_seen = any(spec.kind == "not_seen" for spec in specs)
        self._caps = [
            (spec, self._groups[str(spec.settings["per"])], int(spec.settings["count"])) for spec in specs if spec.kind == "at_most"
        ]
        self._cap_columns = tuple((column, count) for _, column, count in self._caps)
        self._floors = [
            (spec, float(spec.settings["newer_than_days"]), int(spec.settings["count"]))
            for spec in specs
            if spec.kind in ("at_least", "exposure_floor")
        ]
        self._boosts = [(spec, self._boosted(spec, catalogue)) for spec in specs if spec.kind == "boost"]
        self._diverse = [spec for spec in specs if spec.kind == "diverse"]
        pins = [(int(s.settings["position"]), catalogue.row_of(str(s.settings["item_id"]))) for s in specs if s.kind == "pin"]
        self._pins = sorted((position, row) for position, row in pins if row >= 0)
        self._plain = not (self._boosts or self._diverse or self._pins)

    def permits(self, rows: Rows) -> Mask:
        """Which rows no hard rule bars: (N,)."""
        return (self.flags[rows] & self.hard_bits) == 0

    def arrange(self, ranked: Ranked, request: Request) -> Arranged:
        """The first `request.k` items under the rules; fewer only where the ranked items that no hard rule bars are fewer."""
        plain = self._first_page(ranked, request) if self._plain and request.k <= self.page else None
        return plain if plain is not None else self._arranged(ranked, request)

    def _first_page(self, ranked: Ranked, request: Request) -> Arranged | None:
        """What `_arranged` gives where the kernel can tell: one page, filled from the first of the list, nothing barred."""
        without = ranked.seen if (self._not_seen or request.discover) and ranked.seen.any() else None
        floors = self._drawn_floors(request)
        columns = tuple((self._newer_items(days, request), count) for _, days, count in floors)
        found = kernel.first_page(
            ranked.rows, np.ascontiguousarray(ranked.scores), without, self.flags, self.hard_bits, self._cap_columns, columns, request.k
        )
        if found is None:
            return None
        rows, scores, skipped, met = found
        moves = [] if without is None else [Move("not_seen", "removed", tuple(ranked.rows[without].tolist()), "the user has had it")]
        moves += [_skip(spec, gone) for (spec, _, _), gone in zip(self._caps, skipped, strict=True) if gone]
        for (spec, days, _), (added, lacking) in zip(floors, met, strict=True):
            moves += _floor_moves(spec, days, added, lacking)
        return Arranged(rows, scores, tuple(moves))

    def _arranged(self, ranked: Ranked, request: Request) -> Arranged:
        moves: list[Move] = []
        ranked = self._with_pins(ranked)
        keep = self._filter(ranked, request, moves)  # (N,)
        order = self._order(ranked, keep.nonzero()[0], request, moves)
        pinned = self._pinned(ranked, keep)
        chosen = self._pages(ranked, order, pinned, request, moves)
        if len(chosen) < request.k and self._not_seen and not request.discover:
            had = np.flatnonzero(self.permits(ranked.rows) & ranked.seen & ~keep)[: request.k - len(chosen)]
            if len(had):
                moves.append(Move("not_seen", "gave way", tuple(ranked.rows[had].tolist()), "too few items the user has not had"))
            chosen = [*chosen, *had.tolist()]
        at = np.array(chosen[: request.k], np.intp)
        return Arranged(ranked.rows[at], ranked.scores[at], tuple(moves))

    def _bit(self, spec: RuleSpec) -> int:
        flag = _FLAG_OF.get(spec.kind) or str(spec.settings["flag"])
        if flag not in POLICY_FLAGS:
            raise BadRule(f"rule {spec.kind}: no policy flag {flag!r}: known are {', '.join(POLICY_FLAGS)}")
        return 1 << POLICY_FLAGS.index(flag)

    def _boosted(self, spec: RuleSpec, catalogue: Catalogue) -> Mask:
        """Items a boost is for, its age condition left to the request: (I,)."""
        brand, category = str(spec.settings["brand"]), str(spec.settings["category"])
        mask = np.ones(len(catalogue), bool)
        if brand:
            mask &= self._groups["brand"] == _code(catalogue.brand_names, brand, spec)
        if category:
            code = _code(catalogue.category_names, category, spec)
            mask &= np.any([self._groups[level] == code for level in GROUPS[:3]], axis=0)
        return mask

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

    def _filter(self, ranked: Ranked, request: Request, moves: list[Move]) -> Mask:
        flags = self.flags.take(ranked.rows)
        keep: Mask = (flags & self.hard_bits) == 0
        if not keep.all():
            for kind, bit in self._hard:
                gone = ranked.rows[(flags & bit) != 0]
                if len(gone):
                    moves.append(Move(kind, "removed", tuple(gone.tolist()), "carries the flag"))
        if (self._not_seen or request.discover) and ranked.seen.any():
            gone = ranked.rows[keep & ranked.seen]
            moves.append(Move("not_seen", "removed", tuple(gone.tolist()), "the user has had it"))
            keep &= ~ranked.seen
        return keep

    def _order(self, ranked: Ranked, order: NDArray[np.intp], request: Request, moves: list[Move]) -> NDArray[np.intp]:
        """Positions in the order after boosts and diversity."""
        scores = ranked.scores
        for spec, mask in self._boosts:
            hit = mask[ranked.rows]
            if spec.settings["newer_than_days"]:
                hit = hit & self._new(ranked.rows, float(spec.settings["newer_than_days"]), request)
            factor = np.float32(spec.settings["factor"])
            scores = np.where(hit, np.where(scores > 0, scores * factor, scores / factor), scores)
        if self._boosts:
            before, order = order, order[np.argsort(-scores[order], kind="stable")]
            moves += _moved("boost", ranked, before, order, request.k, "its score was multiplied")
        for spec in self._diverse:
            before, order = order, self._diversified(ranked.rows, scores, order, spec, request.k)
            moves += _moved("diverse", ranked, before, order, request.k, "too like a better one")
        return order

    def _diversified(self, rows: Rows, scores: Floats, order: NDArray[np.intp], spec: RuleSpec, k: int) -> NDArray[np.intp]:
        head = order[: int(spec.settings["among"])]
        if len(head) < 2:
            return order
        codes = np.stack([self._groups[name][rows[head]] for name in GROUPS])  # (4, M)
        return np.concatenate((head[marginal_order(scores[head], codes, float(spec.settings["strength"]), k)], order[len(head) :]))

    def _pinned(self, ranked: Ranked, keep: Mask) -> list[tuple[int, int]]:
        """(position, position in `ranked`) of each pin that no hard rule bars. A pin outranks `not_seen`."""
        at = [(position, int(np.flatnonzero(ranked.rows == row)[0])) for position, row in self._pins]
        return [(position, index) for position, index in at if keep[index] or self.permits(ranked.rows[index : index + 1])[0]]

    def _pages(
        self, ranked: Ranked, order: NDArray[np.intp], pinned: list[tuple[int, int]], request: Request, moves: list[Move]
    ) -> list[int]:
        """Page after page. For one page the first of the list and the new items are enough, unless they turn out too few."""
        near = self._window(ranked, order, request) if request.k <= self.page and len(order) > _NEAR else order
        noted: list[Move] = []
        chosen = self._turn(ranked, near, pinned, request, noted)
        if len(near) < len(order) and (
            len(chosen) < request.k or any(move.rule == "at_most" and move.what == "gave way" for move in noted)
        ):
            noted = []
            chosen = self._turn(ranked, order, pinned, request, noted)
        moves += noted
        return chosen

    def _window(self, ranked: Ranked, order: NDArray[np.intp], request: Request) -> NDArray[np.intp]:
        """The first of the order, and those after it that a floor may need."""
        wanted = np.zeros(len(order), bool)
        rows = ranked.rows.take(order)
        for _, days, _ in self._floors:
            wanted |= self._new(rows, days, request)
        wanted[:_NEAR] = True
        return order[wanted]

    def _turn(
        self, ranked: Ranked, order: NDArray[np.intp], pinned: list[tuple[int, int]], request: Request, moves: list[Move]
    ) -> list[int]:
        """Positions in `ranked` of all pages. Within, an item is known by its place in `local`: the order, then the pins."""
        reserved = [index for _, index in pinned]
        local = np.concatenate((order[~np.isin(order, reserved)], reserved)).astype(np.intp) if reserved else order
        rows = ranked.rows[local]
        left = list(range(len(local) - len(reserved)))
        capped = Capped([column.take(rows).tolist() for _, column, _ in self._caps], [count for _, _, count in self._caps])
        at = [(position, len(left) + number) for number, (position, _) in enumerate(pinned)]
        chosen: list[int] = []
        while len(chosen) < request.k and (left or (at and not chosen)):
            size = min(self.page, request.k - len(chosen))
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
        for cap, (spec, _, _) in enumerate(self._caps):
            gone = tuple(int(rows[index]) for index, by in skipped if by == cap and index not in over)
            if gone:
                yield _skip(spec, gone)
        if over:
            yield Move("at_most", "gave way", tuple(rows[over].tolist()), "too few items fit under the caps")

    def _meet_floors(
        self, rows: Rows, page: list[int], left: list[int], capped: Capped, pinned: Sequence[int], request: Request, moves: list[Move]
    ) -> tuple[list[int], list[int]]:
        """Replace the worst old items of the page by the best new ones that fit under the caps."""
        for spec, days, count in self._drawn_floors(request):
            whole, new = [*page, *pinned], self._new(rows, days, request).tolist()
            lacking = min(count, len(whole)) - sum(new[index] for index in whole)
            if lacking <= 0:
                continue
            old = [index for index in page if not new[index]]
            fresh = [index for index in left if new[index]]
            page, left, added = exchange(page, left, old, fresh, lacking, capped, pinned)
            moves += _floor_moves(spec, days, tuple(rows[added].tolist()), lacking - len(added))
        return page, left

    def _drawn_floors(self, request: Request) -> list[tuple[RuleSpec, float, int]]:
        """The floors that hold for this request, with their days and counts."""
        return [
            floor for floor in self._floors if floor[0].kind == "at_least" or drawn(request.request_id, int(floor[0].settings["every"]))
        ]

    def _new(self, rows: Rows, days: float, request: Request) -> Mask:
        """Which rows entered the catalogue within the last days."""
        newer: Mask = self._newer_items(days, request).take(rows)
        return newer

    def _newer_items(self, days: float, request: Request) -> Mask:
        """(I,) which items did."""
        since = request.at_day - days
        kept = self._newer.get(days)
        if kept is None or not kept[0] <= since < kept[1]:
            older = int(np.searchsorted(self._created_sorted, since, side="right"))
            before = float(self._created_sorted[older - 1]) if older else -np.inf
            after = float(self._created_sorted[older]) if older < len(self._created_sorted) else np.inf
            kept = self._newer[days] = (before, after, self._created > since)
        return kept[2]


def drawn(request_id: str, every: int) -> bool:
    """Whether this request is one of the one in `every`: the same answer whenever the same id asks."""
    return every <= 1 or int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "little") % every == 0


def _skip(spec: RuleSpec, rows: tuple[int, ...]) -> Move:
    return Move("at_most", "moved", rows, f"more than {spec.settings['count']} of one {spec.settings['per']}")


def _floor_moves(spec: RuleSpec, days: float, added: tuple[int, ...], lacking: int) -> Iterator[Move]:
    if added:
        yield Move(spec.kind, "added", added, f"newer than {days:g} days")
    if lacking > 0:
        yield Move(spec.kind, "gave way", (), f"{lacking} new items short")


def _code(names: tuple[str, ...], name: str, spec: RuleSpec) -> int:
    if name not in names:
        raise BadRule(f"rule {spec.kind}: the catalogue has no {name!r}: write the name as it is in the items table")
    return names.index(name)


def _moved(rule: str, ranked: Ranked, before: NDArray[np.intp], after: NDArray[np.intp], k: int, why: str) -> list[Move]:
    """Those that left or entered the first k by a reordering."""
    gone = np.setdiff1d(before[:k], after[:k])
    return [Move(rule, "moved", tuple(ranked.rows[gone].tolist()), why)] if len(gone) else []
