"""Items posted since the release: the bundle's recommender grown by rows at its end; they are retrieved and ranked like others.

The content tower gives them a vector, `item.onnx` their halves; counted sources do not know them. An item the bundle has already only
changes its policy flags: a recall holds at once.
Shapes: I items of the bundle, n posted, D embedding.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import CATEGORY_LEVELS, PATH_SEPARATOR, POLICY_FLAGS
from serving.bundle.catalogue import Catalogue, item_key
from serving.bundle.content import Content, item_content
from serving.messages import NewItem
from serving.new_items.store import ItemStore
from serving.recommender import Recommender
from serving.state.store import StoreUnavailable

POLL_SECONDS = 1.0  # another worker's items are known here after this long


class NewItems:
    """Keeps one worker's recommender grown by what was posted. `use` puts the grown one in place."""

    def __init__(self, base: Recommender, store: ItemStore, use: Callable[[Recommender], None], day: Callable[[], float]) -> None:
        self._base, self._store, self._use, self._day = base, store, use, day
        self._version = 0
        self._lock = threading.Lock()  # a post and the poll may refresh at once

    def post(self, items: Sequence[NewItem]) -> tuple[int, int]:
        """Keep items and take them up here; how many were new, and the version. Raises `StoreUnavailable`."""
        new, version = self._store.post([_dated(item, self._day()) for item in items])
        self.refresh()
        return new, version

    def refresh(self) -> bool:
        """Take up what was posted anywhere; whether something was. Raises `StoreUnavailable`."""
        with self._lock:
            version = self._store.version()
            if version == self._version:
                return False
            self._use(grown(self._base, self._store.all()))
            self._version = version
            return True

    async def follow(self, log: Any) -> None:
        """Refresh for ever, in a thread."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except StoreUnavailable as error:
                log.warning("posted items cannot be read", reason=str(error))
            await asyncio.sleep(POLL_SECONDS)


def grown(base: Recommender, items: Sequence[NewItem]) -> Recommender:
    """A recommender of the same bundle that also knows `items`. Flags of items the bundle has are set anew."""
    catalogue = base.catalogue
    rows = catalogue.rows_of_keys(np.array([item_key(item.item_id) for item in items], np.uint64))
    fresh = [item for item, row in zip(items, rows, strict=True) if row < 0]
    known = {int(row): item for item, row in zip(items, rows, strict=True) if row >= 0}
    larger = _with_rows(catalogue, fresh) if fresh else catalogue
    rankers, sources = base.rankers, base.sources
    if fresh:
        codes = np.concatenate((larger.category[len(catalogue) :], larger.brand[len(catalogue) :, None]), 1)
        content = _content(fresh)
        sides = rankers.item(larger.features[len(catalogue) :], codes.astype(np.int32), content)
        rankers = rankers.with_items(sides)
        sources = tuple([source.with_new_items(larger, sides) for source in sources])
    made = Recommender(base.bundle, base.system, sources=sources, rankers=rankers, catalogue=larger)
    for row, item in known.items():
        made.rules.set_policy_flags(row, _flags(item))
    return made


def _with_rows(catalogue: Catalogue, items: Sequence[NewItem]) -> Catalogue:
    """The catalogue with items at its end. Everything counted of them is unknown, and nothing is planned."""
    n = len(items)
    keys = np.concatenate((catalogue.keys, np.array([item_key(item.item_id) for item in items], np.uint64)))
    titles = [item.title.encode() for item in items]
    ends = (int(catalogue.title_ends[-1]) if len(catalogue) else 0) + np.cumsum([len(title) for title in titles])
    unplanned = np.zeros((*catalogue.plan_display.shape[:2], n), np.uint8)
    return replace(
        catalogue,
        item_ids=np.concatenate((catalogue.item_ids, np.array([item.item_id.encode() for item in items], "S"))),
        keys=keys,
        key_order=np.argsort(keys, kind="stable").astype(np.int32),
        category=np.concatenate((catalogue.category, _categories(catalogue, items))),
        brand=np.concatenate((catalogue.brand, _codes(catalogue.brand_names, [item.brand for item in items]))),
        created_day=np.concatenate((catalogue.created_day, [_created_day(item) for item in items])),
        price=np.concatenate((catalogue.price, np.array([np.nan if item.price is None else item.price for item in items], np.float32))),
        flags=np.concatenate((catalogue.flags, np.array([_flags(item) for item in items], np.uint8))),
        title_bytes=np.concatenate((catalogue.title_bytes, np.frombuffer(b"".join(titles), np.uint8))),
        title_ends=np.concatenate((catalogue.title_ends, ends)),
        features=np.concatenate((catalogue.features, np.full((n, catalogue.features.shape[1]), np.nan, np.float32))),
        plan_display=np.concatenate((catalogue.plan_display, unplanned), 2),
        plan_mailer=np.concatenate((catalogue.plan_mailer, unplanned), 2),
    )  # fmt: skip


def _categories(catalogue: Catalogue, items: Sequence[NewItem]) -> NDArray[np.int32]:
    """(n, levels) codes of each path, cut after each level (a missing one is its parent's); 0 where the catalogue does not know it."""
    paths = [item.category.split(PATH_SEPARATOR) if item.category else [] for item in items]
    levels = [
        _codes(catalogue.category_names, [PATH_SEPARATOR.join(path[: level + 1]) for path in paths]) for level in range(CATEGORY_LEVELS)
    ]
    return np.stack(levels, 1)


def _codes(names: tuple[str, ...], values: Sequence[str]) -> NDArray[np.int32]:
    code_of = {name: code for code, name in enumerate(names)}
    return np.array([code_of.get(value, 0) for value in values], np.int32)


def _content(items: Sequence[NewItem]) -> Content:
    each = [item_content(item.category, item.brand, item.title, np.nan if item.price is None else item.price) for item in items]
    return Content(np.concatenate([one.tokens for one in each]), np.concatenate([one.numbers for one in each]))


def _created_day(item: NewItem) -> float:
    return item.created_at.timestamp() / 86_400 if item.created_at else float("nan")


def _flags(item: NewItem) -> int:
    return sum(1 << POLICY_FLAGS.index(flag) for flag in set(item.policy_flags))


def _dated(item: NewItem, day: float) -> NewItem:
    """The item, in the catalogue since now unless it says otherwise."""
    from datetime import UTC, datetime

    import msgspec

    return item if item.created_at else msgspec.structs.replace(item, created_at=datetime.fromtimestamp(day * 86_400, UTC))
