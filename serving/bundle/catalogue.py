"""The item table in memory: one row an item, in the order of its id; everything per item is an array over these rows.

Shapes: I items, Fi item features, P places, W planned periods.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import POLICY_FLAGS
from serving.bundle.arrays import ArrayFolder, Held


def item_key(item_id: str) -> int:
    """A 64-bit name of an item that outlives bundles: user state holds keys, a bundle turns them into its rows."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8).digest(), "little")


def readable(text: str) -> str:
    """Text that is all in capitals as a person would write it."""
    return text.capitalize() if text.isupper() else text


@dataclass(frozen=True)
class Catalogue(ArrayFolder):
    """What is known of every item at a cut. Row r of every array is one item."""

    item_ids: Annotated[NDArray[np.bytes_], Held("I")]  # (I,) UTF-8, sorted by bytes
    keys: Annotated[NDArray[np.uint64], Held("I", any=True)]  # (I,) item_key of each
    key_order: Annotated[NDArray[np.int32], Held("I", below="I")]  # (I,) rows in the order of their keys
    category: Annotated[NDArray[np.int32], Held("I3", below="category_names")]  # (I, 3) code of the path down to that level; 0 unknown
    brand: Annotated[NDArray[np.int32], Held("I", below="brand_names")]  # (I,) 0 unknown
    created_day: Annotated[NDArray[np.float64], Held("I", unknown=True)]  # (I,) days since 1970; NaN: not known before the cut
    price: Annotated[NDArray[np.float32], Held("I", unknown=True)]  # (I,) currency units; NaN unknown
    flags: Annotated[NDArray[np.uint8], Held("I", any=True)]  # (I,) bit b: POLICY_FLAGS[b]
    title_bytes: Annotated[NDArray[np.uint8], Held("B", any=True)]  # UTF-8 titles end to end
    title_ends: Annotated[NDArray[np.int64], Held("I", ends="B")]  # (I,) where each title ends
    features: Annotated[NDArray[np.float32], Held("IF", unknown=True)]  # (I, Fi) item_stats at the cut; NaN: never seen
    plan_display: Annotated[NDArray[np.uint8], Held("WPI", below="display_codes")]  # (W, P, I) code into display_codes; 0 none
    plan_mailer: Annotated[NDArray[np.uint8], Held("WPI", below="mailer_codes")]  # (W, P, I) code into mailer_codes; 0 none
    plan_from: Annotated[NDArray[np.float64], Held("W")]  # (W,) day each planned period begins, ascending
    plan_until: Annotated[NDArray[np.float64], Held("W")]  # (W,) day it ends
    feature_names: tuple[str, ...]  # (Fi)
    category_names: tuple[str, ...]  # code -> full path to that level; [0] is "unknown"
    brand_names: tuple[str, ...]
    places: tuple[str, ...]  # (P)
    display_codes: tuple[str, ...]  # [0] is "" (none)
    mailer_codes: tuple[str, ...]
    cut_day: float  # nothing at or after this day was read

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def sorted_keys(self) -> NDArray[np.uint64]:
        return np.asarray(self.keys)[self.key_order]  # (I,)

    @cached_property
    def key_steps(self) -> NDArray[np.int32]:
        """(1025,) how many keys are below each step of their ten highest bits: where a key is, but for a few places."""
        steps = np.arange(1024, dtype=np.uint64) << np.uint64(54)
        return np.append(np.searchsorted(self.sorted_keys, steps), len(self)).astype(np.int32)

    @cached_property
    def brand_category(self) -> NDArray[np.int32]:
        """(I,) code of the item's brand and category (level 1) together, from 0."""
        pairs = np.asarray(self.brand, np.int64) * len(self.category_names) + self.category[:, 1]
        return np.unique(pairs, return_inverse=True)[1].astype(np.int32)

    @cached_property
    def pairs(self) -> int:
        """How many codes `brand_category` has."""
        return int(self.brand_category.max(initial=-1)) + 1

    @cached_property
    def log_price(self) -> NDArray[np.float32]:
        """(I,) log of the price, at least a cent; NaN where unknown."""
        return np.log(np.maximum(self.price, np.float32(0.01)))

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """(I, 6) of each item side by side, for one look in memory: category levels, brand, `brand_category`, and `log_price`'s bits."""
        return np.column_stack((self.category, self.brand, self.brand_category, self.log_price.view(np.int32)))

    @cached_property
    def place_index(self) -> dict[str, int]:
        return {place: index for index, place in enumerate(self.places)}

    def rows_of_keys(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Rows of `keys` (H,) -> (H,); -1 where the catalogue does not hold the item."""
        if not len(self):
            return np.full(len(keys), -1, np.int32)
        found = np.minimum(np.searchsorted(self.sorted_keys, keys), len(self) - 1)  # (H,)
        return np.where(self.sorted_keys[found] == keys, self.key_order[found], -1).astype(np.int32)

    def row_of(self, item_id: str) -> int:
        """The item's row, or -1."""
        return int(self.rows_of_keys(np.array([item_key(item_id)], np.uint64))[0])

    def item_id(self, row: int) -> str:
        return bytes(self.item_ids[row]).decode()

    def title(self, row: int) -> str:
        begin = int(self.title_ends[row - 1]) if row else 0
        return bytes(self.title_bytes[begin : int(self.title_ends[row])]).decode()

    def category_name(self, row: int, level: int = 1) -> str:
        """The last part of the item's category path at `level` (0 widest)."""
        return self.category_names[self.category[row, level]].rsplit(" > ", 1)[-1]

    def readable_title(self, row: int) -> str:
        """The item's title, or its category's name, as a person would write it."""
        return readable(self.title(row) or self.category_name(row))

    def readable_category(self, row: int) -> str:
        """The item's category (level 1) as a person would write it; empty where it is unknown."""
        return readable(self.category_name(row)) if self.category[row, 1] else ""

    def flagged(self, flag: str) -> NDArray[np.bool_]:
        """(I,) which items carry a policy flag."""
        return (np.asarray(self.flags) & (1 << POLICY_FLAGS.index(flag))) != 0

    def plan_at(self, day: float) -> int:
        """Index of the planned period that holds `day`, or -1 when nothing is planned for it."""
        begins, ends = self._plan_days
        period = bisect_right(begins, day) - 1
        return period if period >= 0 and day < ends[period] else -1

    @cached_property
    def _plan_days(self) -> tuple[list[float], list[float]]:
        return self.plan_from.tolist(), self.plan_until.tolist()
