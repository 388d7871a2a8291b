"""The door to the loops compiled from `serving/native/`; without them their callers do the same in numpy, to the bit.

Every function here is a loop's answer, or None where the loops are not compiled or switched off: the caller then goes its own way.
`native()` tells whether they run; `use(False)` switches them off (a server's `--kernel pure`, tests and measurements).
Shapes: I items, D dimensions, M items with neighbours, H history items, C candidates, S sources, L items listed by all sources.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_compiled: ModuleType | None
try:
    from serving.native import _kernel as _compiled  # type: ignore[attr-defined, no-redef]
except ImportError:  # no compiler where it was installed: numpy does the work
    _compiled = None

_active: ModuleType | None = _compiled

Array = NDArray[Any]
Past = tuple[Array, Array, Array, Array, Array]  # see `serving/retrieval/interest.py`


class NoKernel(RuntimeError):
    """The native kernel was asked for where it is not installed."""


def native() -> bool:
    """Whether the compiled loops run."""
    return _active is not None


def use(wanted: bool) -> None:
    """Switch the compiled loops on or off. Raises `NoKernel` when they are wanted and were never compiled."""
    global _active
    if wanted and _compiled is None:
        raise NoKernel("the native kernel is not installed: install a C compiler and the package again, or do without it")
    _active = _compiled if wanted else None


def user_side(
    features: Array, mean: Array, scale: Array, log_mean: Array, log_scale: Array, own_mean: Array, own_spread: Array, clip: float,
    bag: Array | None, first: Array, bias: Array, second: Array, *tower: Array,
) -> tuple[Array, Array] | None:  # fmt: skip
    """(H,) both rankers' user halves side by side, and the user's vector (D,) of length one. See `serving/ranking/user_side.py`."""
    if _active is None:
        return None
    halves, vector = np.empty(second.shape[1], np.float32), np.empty(len(tower[-1]), np.float32)
    norm = (mean, scale, log_mean, log_scale, own_mean, own_spread, clip)
    return (halves, vector) if _active.user_side(features, *norm, bag, first, bias, second, *tower, halves, vector) else None


def products(table: Array, vector: Array, scales: Array | None, prior: Array | None) -> Array | None:
    """(I,) table int8 (I, D) x vector float32 (D,) rounded to int8, then x scales (I,) + prior (I,) where they are given."""
    if _active is None or not table.flags.c_contiguous:
        return None
    out = np.empty(len(table), np.float32)
    _active.products(table, np.ascontiguousarray(vector), scales, prior, out)
    return out


def spans(table: Array, vector: Array, scales: Array, prior: Array, begins: Array, ends: Array) -> Array | None:
    """`products` of the stretches begins[l]:ends[l] of the table, one after the other."""
    if _active is None:
        return None
    out = np.empty(int((ends - begins).sum()), np.float32)
    _active.spans(table, vector, scales, prior, begins, ends, out)
    return out


def search(
    table: Array, vector: Array, scales: Array, prior: Array, marked: Array, every: int, n: int, excluded: Array
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """Rows and scores (<= n,) of the best, each `every`-th place for the best `marked` one, none of `excluded`; and `products` (I,)."""
    if _active is None or not table.flags.c_contiguous:
        return None
    values, rows, scores = np.empty(len(table), np.float32), np.empty(n, np.int32), np.empty(n, np.float32)
    found = _active.search(table, vector, scales, prior, marked, every, n, excluded, values, rows, scores)
    return rows[:found], scores[:found], values


def best(scores: Array, n: int, floor: float, excluded: Array) -> Array | None:
    """(<= n,) positions of the greatest scores above `floor`, best first, ties by position; none of `excluded`."""
    if _active is None:
        return None
    rows = np.empty(min(n, len(scores)), np.int32)
    return rows[: _active.best(scores, len(rows), floor, excluded, rows)]


def again(past: Past, items: int, factor: Array, usual: float, n: int) -> tuple[Array, Array] | None:
    """Rows and scores (<= n,) of what was had: counts x factor (I,), greatest first. See `serving/retrieval/buy_again.py`."""
    if _active is None:
        return None
    n = min(n, len(past[0]))
    rows, scores = np.empty(n, np.int32), np.empty(n, np.float32)
    _active.again(past, items, factor, usual, n, rows, scores)
    return rows, scores


def votes(
    neighbours: Array, weights: Array, scales: Array, position_of: Array, names: Array,
    past: Past, limit: int, items: int, excluded: Array, n: int,
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """Rows and scores of the n best, and the sums (M,) of all; nothing of any where nobody votes. See `serving/retrieval/linear.py`."""
    if _active is None:
        return None
    n = min(n, len(scales))
    sums, rows, scores = np.empty(len(scales), np.float32), np.empty(n, np.int32), np.empty(n, np.float32)
    found = _active.votes(neighbours, weights, scales, position_of, names, past, limit, items, excluded, n, sums, rows, scores)
    return (rows[:found], scores[:found], sums) if found >= 0 else (rows[:0], scores[:0], sums[:0])


def offers(
    codes: Array, past: Past, shares: Array, ends: Array, powers: Array, prior: float, worth: Array, names: Array,
    first: Array, first_codes: Array, second: Array, second_codes: Array, excluded: Array, n: int,
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """Rows and scores of the n best, scores (A,) of all. See `serving/retrieval/category_promotion.py`; kinds are told in uint16."""
    if _active is None or not first.dtype == second.dtype == np.uint16:
        return None
    n = min(n, len(worth))
    values, rows, scores = np.empty(len(worth), np.float32), np.empty(n, np.int32), np.empty(n, np.float32)
    found = _active.offers(
        codes, past, shares, ends, powers, prior, worth, names, first, first_codes, first_codes.shape[1], second, second_codes,
        second_codes.shape[1], excluded, n, values, rows, scores,
    )  # fmt: skip
    return rows[:found], scores[:found], values


def bag(table: Array, past: Past, items: int) -> Array | None:
    """(D,) mean of the rows of a float16 table (I, D), by weight. See `serving/retrieval/two_tower.py`."""
    if _active is None or table.dtype != np.float16:
        return None
    out = np.empty(table.shape[1], np.float32)
    _active.bag(table, past, items, out)
    return out


def halves(table: Array, rows: Array, user: Array) -> Array | None:
    """(C, H) rows of a float16 table (I, H), plus `user` (H,)."""
    if _active is None or table.dtype != np.float16:
        return None
    out = np.empty((len(rows), table.shape[1]), np.float32)
    _active.halves(table, rows, user, out)
    return out


def resolve(sorted_keys: Array, rows: Array, steps: Array, keys: Array) -> Array | None:
    """(H,) the row of each key, -1 where there is none."""
    if _active is None:
        return None
    out = np.empty(len(keys), np.int32)
    _active.resolve(sorted_keys, rows, steps, keys, out)
    return out


def recall(
    sorted_keys: Array, rows: Array, steps: Array, keys: Array, last: Array, first: Array, counts: Array, decayed: Array, taus: Array,
    day: float,
) -> tuple[Array, Array, Array, Array, Array, Array] | None:  # fmt: skip
    """Of the known keys, ascending by row: rows, order, counts, age, span (H,), and decayed (T, H). See `serving.query.History`."""
    if _active is None or len(sorted_keys) >= 1 << 24:
        return None
    n, t = len(keys), len(taus)
    found = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    now = np.empty(t * n, np.float32)
    known = _active.recall(sorted_keys, rows, steps, keys, last, first, counts, decayed, taus, day, *found, now)
    known_rows, order, known_counts, age, span = (one[:known] for one in found)
    return known_rows, order, known_counts, age, span, now[: t * known].reshape(t, known)


def falling(scores: Array) -> Array | None:
    """(C,) positions of the scores, greatest first, ties by position."""
    if _active is None:
        return None
    order = np.empty(len(scores), np.int32)
    _active.falling(scores, order)
    return order


def fuse(
    sources: tuple[tuple[Array, Array, Array | None, Array | None, float, float, int], ...], history: Array, items: int, pool: int,
    flags: Array | None, barring: int,
) -> tuple[Array, Array, Array, Array, Array] | None:  # fmt: skip
    """Rows (C,), fused (C,), ranks (C, S), scores (C, S), seen (C,) of the pool of some lists. See `serving/retrieval/fusion.py`.

    `sources`: of each its list's rows and scores, its values and their positions by row, if it has them; weight, offset, places promised.
    """
    listed = sum(len(source[0]) for source in sources)
    if _active is None or listed >= 1 << 16 - 1:
        return None
    most = min(listed, max(pool, sum(source[6] for source in sources)))  # a pool may be kept, with all the room it was given
    kept, fused, seen = np.empty(most, np.int32), np.empty(most, np.float32), np.empty(most, np.bool_)
    ranks, scores = np.empty((most, len(sources)), np.float32), np.empty((most, len(sources)), np.float32)
    size = _active.fuse(sources, history, items, pool, flags, barring, kept, fused, ranks, scores, seen)
    return kept[:size], fused[:size], ranks[:size], scores[:size], seen[:size]


def worth(logits: Array, seen: Array, lifts: Array | None, repeat: float, discover: float, at: Array | None) -> Array | None:
    """(K,) weight / (1 + exp(-logit)) of each candidate's own head, of logits (K, 2), `seen` and `lifts` (C,). See `final_scores`."""
    if _active is None:
        return None
    scores = np.empty(len(logits), np.float32)
    _active.worth(logits, seen, lifts, at, repeat, discover, scores)
    return scores


def merge(light: Array, order: Array, heavy: Array, head: Array, rows: Array, seen: Array) -> tuple[Array, Array, Array] | None:
    """Rows, scores and seen (C,): the first of the light order by their heavy scores, then the others. See `Recommender.order`."""
    if _active is None:
        return None
    out = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32), np.empty(len(rows), np.bool_)
    _active.merge(light, order, heavy, head, rows, seen, *out)
    return out


def features(*given: Any, count: int, width: int) -> Array | None:
    """(count, width) what the rankers are told of each candidate. See `serving/ranking/features.py`."""
    if _active is None:
        return None
    out = np.empty((count, width), np.float32)
    _active.features(*given, out)
    return out


def judge(
    halves: Array, rows: Array, at: Array | None, user: Array, cross: Array, mean: Array, scale: Array, clip: float, panels: Array,
    sizes: Array,
) -> Array | None:  # fmt: skip
    """(C, heads) logits of a ranker; of those at the positions `at` (K,) alone, where they are given. See `serving/ranking/layers.py`."""
    if _active is None or halves.dtype != np.float16:
        return None
    out = np.empty((len(rows if at is None else at), int(sizes[-1])), np.float32)
    return out if _active.judge(halves, rows, at, user, cross, mean, scale, clip, panels, sizes, out) else None


def page(
    rows: Array, scores: Array, left_out: Array | None, flags: Array, bits: int, caps: tuple[tuple[Array, int], ...],
    floors: tuple[tuple[Array, int], ...], size: int,
) -> tuple[Array, Array, tuple[tuple[int, ...], ...], tuple[tuple[tuple[int, ...], int], ...]] | None:  # fmt: skip
    """Rows and scores (size,) of the first page, rows skipped by each cap, added and lacking by each floor. See `serving/rules/arrange.py`.

    None also where it is not plain: a hard rule bars a row, or the caps leave the page short.
    """
    if _active is None or rows.dtype != np.int32:
        return None
    chosen, worth = np.empty(size, np.int32), np.empty(size, np.float32)
    told = _active.page(rows, np.ascontiguousarray(scores), left_out, flags, bits, caps, floors, chosen, worth)
    return None if told is None else (chosen, worth, *told)


def known(pool: Array, ranks: Array, history: Array, rows: Array) -> list[tuple[tuple[int, ...] | None, int]] | None:
    """Of each row (k,): the sources that returned it, best rank first (None: not in the pool), its place in the history or -1."""
    return None if _active is None else _active.known(pool, ranks, history, rows)


def nearest(neighbours: Array, weights: Array, voters: Array, strengths: Array, target: int) -> int | None:
    """Which of the voters (V,) has the greatest weight x strength for the target, the first of equals; -1: none is above 0."""
    return None if _active is None else _active.nearest(neighbours, weights, len(weights), voters, strengths, target)


def fault(frame: bytes | memoryview, at: int, below: int, rows: int, scores: int, ranks: int, flags: int, once: bool) -> int | None:
    """What is wrong with the numbers of a frame that begin at `at`: a place in `serving.split.frames.FAULTS`, 0: nothing."""
    return None if _active is None else _active.fault(frame, at, below, rows, scores, ranks, flags, once)
