"""The door to the loops compiled from `serving/native/`; without them their callers do the same in numpy, to the bit.

Every function here is a loop's answer, or None where the loops are not compiled or switched off: the caller then goes its own way.
`native()` tells whether they run; `use(False)` switches them off (a server's `--kernel pure`, tests and measurements).
What is given is checked in `_kernel.pyx`: arrays of another type, length or with rows of nothing are a `ValueError`.
Shapes: I items, D dimensions, M items with neighbours, T decays, H history items, E session events, A offers, G groupings,
C candidates, S sources.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_compiled: ModuleType | None
try:
    from serving.native import _kernel as _compiled  # type: ignore[attr-defined, no-redef]
except ImportError:  # no compiler where it was installed: numpy does the work
    _compiled = None

_active: ModuleType | None = _compiled

Array = NDArray[Any]


class Past(NamedTuple):
    """What a user had and looked at, as sources read it: `serving/retrieval/interest.py`."""

    rows: Array  # (H,) int32
    decayed: Array  # (T, H) counts by each decay
    mix: Array  # (T,) share of each decay
    clicked: Array  # (E,) int32
    session: Array  # (E,) weights


class Told(NamedTuple):
    """Constants of the features: `serving/ranking/features.py`, `serving/ranking/affinity.py`."""

    taste: int  # which decay shares are taken at
    recent: int
    never: float  # days
    limit: float  # gaps
    relative: float
    offset: float  # of a rank


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


def descending(scores: Array) -> Array | None:
    """(C,) positions of the scores, greatest first, ties by position."""
    return None if _active is None else _active.descending(scores)


def history(catalogue: Any, state: Any, taus: Array, day: float) -> tuple[Array, Array, Array, Array, Array, Array] | None:
    """Of a state's known keys, ascending by row: rows, order, counts, age, span (H,), and decayed (T, H). See `serving.query.History`."""
    return None if _active is None else _active.history(catalogue, state, taus, day)


def user_side(features: Array, standard: Any, layers: Any, bag: Array | None) -> tuple[Array, Array] | None:
    """(H,) both rankers' user halves side by side, and the user's vector (D,) of length one. See `serving/ranking/user_side.py`."""
    return None if _active is None else _active.user_side(features, standard, layers, bag)


def products(table: Array, vector: Array, scales: Array | None, prior: Array | None) -> Array | None:
    """(I,) table int8 (I, D) x vector float32 (D,) rounded to int8, then x scales (I,) + prior (I,) where they are given."""
    return None if _active is None else _active.products(table, vector, scales, prior)


def spans(table: Array, vector: Array, scales: Array, prior: Array, begins: Array, ends: Array) -> Array | None:
    """`products` of the stretches begins[l]:ends[l] of the table, one after the other."""
    return None if _active is None else _active.spans(table, vector, scales, prior, begins, ends)


def search(
    table: Array, vector: Array, scales: Array, prior: Array, marked: Array, every: int, n: int, excluded: Array
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """Rows and scores (<= n,) of the best, each `every`-th place for the best `marked` one, none of `excluded`; and `products` (I,)."""
    return None if _active is None else _active.search(table, vector, scales, prior, marked, every, n, excluded)


def buy_again(factor: Array, usual: float, past: Past, items: int, n: int) -> tuple[Array, Array] | None:
    """Rows and scores (<= n,) of what was had, the greatest weight times factor (I,) first. See `serving/retrieval/buy_again.py`."""
    return None if _active is None else _active.buy_again(factor, usual, past, items, n)


def history_embedding(table: Array, past: Past, items: int) -> Array | None:
    """(D,) mean of the float16 rows (I, D) of what was had and looked at, by weight. See `serving/retrieval/two_tower.py`."""
    return None if _active is None else _active.history_embedding(table, past, items)


def item_item(table: Any, past: Past, limit: int, items: int, excluded: Array, n: int) -> tuple[Array, Array, Array] | None:
    """Rows and scores of the n best above 0, and the sums (M,) of all; nothing where nobody votes. See `serving/retrieval/linear.py`."""
    return None if _active is None else _active.item_item(table, past, limit, items, excluded, n)


def category_promotion(
    codes: Array, past: Past, offers: Any, powers: Array, worth: Array, kinds: tuple[Any, Any], excluded: Array, n: int
) -> tuple[Array, Array, Array] | None:
    """Rows and scores of the n best above 0, scores (A,) of all; kinds in uint16. See `serving/retrieval/category_promotion.py`."""
    if _active is None or not kinds[0].at.dtype == kinds[1].at.dtype == np.uint16:
        return None
    return _active.category_promotion(codes, past, offers, powers, worth, *kinds, excluded, n)  # type: ignore[no-any-return]


def fuse(
    hits: Sequence[Any], terms: Sequence[tuple[float, float, int]], history: Array, items: int, pool: int, flags: Array | None, barring: int
) -> tuple[Array, Array, Array, Array, Array] | None:
    """Rows (C,), fused (C,), ranks (C, S), scores (C, S), seen (C,) of the pool of some lists. See `serving/retrieval/fusion.py`.

    `terms`: of each list its weight, offset and places promised.
    """
    return None if _active is None else _active.fuse(hits, terms, history, items, pool, flags, barring)


def features(
    catalogue: Any, history: Any, session: tuple[Array, Array], pool: Any, plans: tuple[Array | None, Array | None], told: Told
) -> Array | None:
    """(C, Fx) what the rankers are told of each candidate. See `serving/ranking/features.py`."""
    return None if _active is None else _active.features(catalogue, history, session, pool, plans, told)


def rank(layers: Any, halves: Array, rows: Array, at: Array | None, user: Array, cross: Array) -> Array | None:
    """(C, heads) logits of a ranker; of those at the positions `at` (K,) alone, where they are given. See `serving/ranking/layers.py`."""
    if _active is None or halves.dtype != np.float16:
        return None
    return _active.rank(layers, halves, rows, at, user, cross)  # type: ignore[no-any-return]


def final_scores(logits: Array, seen: Array, lifts: Array | None, heads: Any, at: Array | None) -> Array | None:
    """(K,) the heads' worth of the candidates: logits (K, H), `seen`, `lifts` (C,). See `serving/ranking/heads.py`."""
    return None if _active is None else _active.final_scores(logits, seen, lifts, heads, at)


def first_page(
    rows: Array, scores: Array, left_out: Array | None, flags: Array, bits: int, caps: Sequence[tuple[Array, int]],
    floors: Sequence[tuple[Array, int]], size: int,
) -> tuple[Array, Array, tuple[tuple[int, ...], ...], tuple[tuple[tuple[int, ...], int], ...]] | None:  # fmt: skip
    """Rows and scores (size,) of the first page, rows skipped by each cap, added and lacking by each floor. See `serving/rules/arrange.py`.

    None also where it is not plain: a hard rule bars a row, or the caps leave the page short.
    """
    return None if _active is None else _active.first_page(rows, scores, left_out, flags, bits, caps, floors, size)


def provenance(pool: Array, ranks: Array, history: Array, rows: Array) -> list[tuple[tuple[int, ...] | None, int, int]] | None:
    """Of each row (k,): the sources that returned it, best rank first (None: not in the pool); its places in pool and history, or -1."""
    return None if _active is None else _active.provenance(pool, ranks, history, rows)
