"""One page of an answer under caps: plain lists and counts, no catalogue.

Items are positions in a ranked list; a code says which group an item is of, 0 unknown (never counted together).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Capped:
    """Groups and how many of each a page may hold: codes[c][i] is item i's group under cap c."""

    codes: Sequence[Sequence[int]]
    caps: Sequence[int]

    def pairs(self) -> Iterator[tuple[Sequence[int], int]]:
        return zip(self.codes, self.caps, strict=True)


def fits(index: int, page: Sequence[int], capped: Capped) -> bool:
    """Whether the item fits under every cap beside those of the page."""
    return all(not code[index] or sum(code[other] == code[index] for other in page) < cap for code, cap in capped.pairs())


def fill_page(
    left: list[int], capped: Capped, size: int, pinned: Sequence[int]
) -> tuple[list[int], list[int], list[tuple[int, int]], list[int]]:
    """The first of `left` that fit under the caps beside `pinned`, in order, until they are `size` with the pins.

    Where too few fit, the first of the others. Returns the page without pins, what is left in order, (item, cap) of each left out by a
    cap, and those taken against one.
    """
    counts: list[dict[int, int]] = [{} for _ in capped.caps]
    for index in pinned:
        _count(counts, capped, index)
    wanted = size - len(pinned)
    page: list[int] = []
    skipped: list[tuple[int, int]] = []
    read = 0
    while read < len(left) and len(page) < wanted:
        index = left[read]
        read += 1
        full = _full(counts, capped, index)
        if full >= 0:
            skipped.append((index, full))
        else:
            page.append(index)
            _count(counts, capped, index)
    waiting = [index for index, _ in skipped]
    over = waiting[: wanted - len(page)]
    return page + over, waiting[len(over) :] + left[read:], skipped, over


def exchange(
    page: list[int], left: list[int], old: list[int], fresh: list[int], wanted: int, capped: Capped, pinned: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """Put the first `wanted` of `fresh` that fit in the place of the last of `old`; those go first among what is left.

    Returns page, left and the items added, of which there may be fewer.
    """
    added: list[int] = []
    while old and len(added) < wanted:
        kept = [index for index in page if index != old[-1]]
        beside = [*kept, *pinned]
        fit = next((index for index in fresh if index not in added and fits(index, beside, capped)), None)
        if fit is None:
            break
        page, left = [*kept, fit], [old[-1], *left]
        left.remove(fit)
        old, added = old[:-1], [*added, fit]
    return page, left, added


def _full(counts: list[dict[int, int]], capped: Capped, index: int) -> int:
    """The first cap the item would break, or -1."""
    for at, (code, cap) in enumerate(capped.pairs()):
        if code[index] and counts[at].get(code[index], 0) >= cap:
            return at
    return -1


def _count(counts: list[dict[int, int]], capped: Capped, index: int) -> None:
    for count, code in zip(counts, capped.codes, strict=True):
        count[code[index]] = count.get(code[index], 0) + 1
