"""Items posted since the release: the bundle's recommender grown by rows at its end; they are retrieved and ranked like others.

The content tower gives them a vector, `item.onnx` their halves; counted sources do not know them. They stand in tables with room at
their end, so a post writes its own rows. An item the bundle has already only changes its policy flags; a recall is a safety message and
holds at once.
Shapes: I items of the bundle, n posted, D embedding.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import CATEGORY_LEVELS, PATH_SEPARATOR, POLICY_FLAGS
from serving.bundle.catalogue import Catalogue, item_key
from serving.bundle.content import Content, item_content
from serving.messages import ItemPatch, NewItem
from serving.new_items.room import Room
from serving.new_items.safety import Book, Safety, Said
from serving.new_items.store import ItemStore, Kept, named
from serving.ranking.rankers import ItemSide
from serving.recommender import Recommender
from serving.rules.bars import SAFETY
from serving.state.states import KEEP_DAYS
from serving.state.store import StoreUnavailable

POLL_SECONDS = 1.0  # another worker's items are known here after this long
MAX_POSTED = 10_000  # items beyond a release; more of them are worth a release
_ACTIONS = {"recalled": "recall", "blocked": "block"}  # flags that are safety messages: set by whoever sends them, taken back only by name
_FLAGS = {action: flag for flag, action in _ACTIONS.items()}
_LASTING = sum(1 << POLICY_FLAGS.index(flag) for flag in _ACTIONS)


class NewItems:
    """Keeps one worker's recommender grown by what was posted, and out of it what was recalled. `use` puts it in place.

    `safety`: the messages that hold whatever is posted; None: there are none (a measurement). `grows`: False where rows are elsewhere too.
    """

    def __init__(
        self, base: Recommender, store: ItemStore, use: Callable[[Recommender], None], day: Callable[[], float],
        safety: Safety | None = None, grows: bool = True,
    ) -> None:  # fmt: skip
        self._base, self._store, self._use, self._day, self._safety, self.grows = base, store, use, day, safety, grows
        self._tables, self._now = PostedTables(base), base
        self._flags = np.array(base.rules.flags)  # as bundle and posts say, safety messages left out
        self._version, self._book = 0, Book()
        self._lock = threading.Lock()  # of what answers see; held while it is written, never while somebody is waited for
        self._refreshing = threading.Lock()  # a post and the poll may refresh at once
        self._sharing = threading.Lock()  # one at a time: the others' words are taken along a second later

    def post(self, items: Sequence[ItemPatch | NewItem]) -> tuple[int, int]:
        """Keep items and take them up here; how many were new, and the version. Raises `StoreUnavailable`."""
        day, fields = self._day(), [named(item) for item in items]
        self.say(
            [Said(one["item_id"], _ACTIONS[flag], True, day) for one in fields for flag in one.get("policy_flags", ()) if flag in _ACTIONS]
        )
        self._has_room(fields)
        new, version = self._store.post(fields, day)
        self.refresh()
        return new, version

    def _has_room(self, fields: Sequence[dict[str, Any]]) -> None:
        """Items the release has take none: theirs is a word about a row that is there."""
        posted = {one["item_id"] for one in fields} | {kept.item.item_id for kept in self._store.all()}
        if len(posted) > MAX_POSTED and len(self._unknown(posted)) > MAX_POSTED:
            raise StoreUnavailable(f"more than {MAX_POSTED} items were posted since the release: make a release")

    def _unknown(self, item_ids: Iterable[str]) -> list[str]:
        names = list(item_ids)
        rows = self._base.catalogue.rows_of_keys(np.array([item_key(name) for name in names], np.uint64))
        return [name for name, row in zip(names, rows.tolist(), strict=True) if row < 0]

    def say(self, messages: Sequence[Said]) -> None:
        """Keep safety messages; they hold here when this returns, and in the next answer of every worker. Raises `StoreUnavailable`."""
        if self._safety is None or not messages:
            return
        self._safety.say(messages)
        self.hear()

    def is_news(self) -> bool:
        """Whether a safety message is not heard here yet."""
        return self._safety is not None and self._safety.is_news()

    def hear(self) -> None:
        """Let every safety message hold that this machine knows. Raises `StoreUnavailable`."""
        if self._safety is None:
            return
        with self._lock:
            book = self._safety.book()
            if book != self._book:
                self._book = book
                self._apply()
                self._use(self._now)

    def refresh(self) -> bool:
        """Take up what was posted or said anywhere; whether something was posted. Raises `StoreUnavailable`."""
        self.share()
        with self._refreshing:
            version = self._store.version()
            if version == self._version:
                return False
            kept = self._retired(self._store.all())
            made = grown(self._base, kept, self._tables) if self.grows else self._base
            flags = np.array(made.rules.flags) if made is not self._base else self._flags
            with self._lock:
                self._flags, self._now, self._version = flags, made, version
                self._apply()
                self._use(made)
            return True

    def share(self) -> None:
        """Hear what other machines were told, and tell them what this one was, unless that is being done. Raises `StoreUnavailable`."""
        if self._safety is None or not self._sharing.acquire(blocking=False):
            return
        try:
            self._safety.share()
        finally:
            self._sharing.release()
        self.hear()

    def _retired(self, kept: Sequence[Kept]) -> list[NewItem]:
        """What still counts: what was posted of an item before the release that holds it says less than the release does."""
        cut, unknown = self._base.catalogue.cut_day, set(self._unknown(one.item.item_id for one in kept))
        known = [one for one in kept if one.item.item_id not in unknown]
        old = [one.item.item_id for one in known if one.day < cut - KEEP_DAYS]
        if old:
            self._store.drop(old)
        late = {one.item.item_id for one in known if one.day < cut}
        return [one.item for one in kept if one.item.item_id not in late]

    def _apply(self) -> None:
        """Flags as bundle, posts and safety messages say together. In place: whoever answers meanwhile sees each item so or so."""
        catalogue, flags = self._now.catalogue, self._flags.copy()
        said = list(self._book.values())
        rows = catalogue.rows_of_keys(np.array([item_key(one.item_id) for one in said], np.uint64)).tolist()
        for one, row in zip(said, rows, strict=True):
            if row < 0:
                continue
            if one.on:
                flags[row] |= SAFETY
            elif one.action in _FLAGS and one.at >= catalogue.cut_day:  # a release made since knows better
                flags[row] &= 0xFF ^ (1 << POLICY_FLAGS.index(_FLAGS[one.action]))
        self._now.rules.flags[:] = flags

    async def follow(self, log: Any) -> None:
        """Refresh for ever, in a thread."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except StoreUnavailable as error:
                log.warning("posted items or safety messages cannot be read", reason=str(error))
            except Exception as error:
                log.error("posted items or safety messages cannot be taken up", exc_info=error)
            await asyncio.sleep(POLL_SECONDS)


class PostedTables:
    """What posted items have in each table of one recommender, behind the release's rows. Posting more writes what is more."""

    def __init__(self, base: Recommender) -> None:
        self.base = base
        self._rooms: dict[str, Room] = {}
        self._items: list[NewItem] = []
        self.last: ItemSide | None = None  # what the models said of the latest

    def put(self, name: str, base: Any, first: int, rows: Any, axis: int = 0) -> Any:
        """The named table with `rows` as its posted ones from the `first` on."""
        if name not in self._rooms:
            self._rooms[name] = Room(base, axis)
        return self._rooms[name].put(first, rows)

    def same(self, items: Sequence[NewItem]) -> int:
        """How many of the first items are as they were the last time."""
        count = next((at for at, (one, other) in enumerate(zip(items, self._items, strict=False)) if one != other), None)
        return min(len(items), len(self._items)) if count is None else count

    def took(self, items: Sequence[NewItem]) -> None:
        self._items = list(items)


def grown(base: Recommender, items: Sequence[NewItem], tables: PostedTables | None = None) -> Recommender:
    """A recommender of the same bundle that also knows `items`. Items the bundle has get the flags they are posted with, and more of them.

    `tables`: of the calls before, in the order of which items stay; the recommenders made before go on as they were.
    """
    catalogue, tables = base.catalogue, tables or PostedTables(base)
    rows = catalogue.rows_of_keys(np.array([item_key(item.item_id) for item in items], np.uint64))
    fresh = [item for item, row in zip(items, rows, strict=True) if row < 0]
    known = {int(row): item for item, row in zip(items, rows, strict=True) if row >= 0}
    larger, rankers, sources = catalogue, base.rankers, base.sources
    if fresh:
        first = tables.same(fresh)
        larger = _with_rows(catalogue, fresh, first, tables)
        sides = _sides(base, larger, fresh, first, tables)
        tables.took(fresh)
        rankers = rankers.with_items(sides)
        sources = tuple([source.with_new_items(larger, sides) for source in sources])
    made = Recommender(base.bundle, base.system, sources=sources, rankers=rankers, catalogue=larger)
    for row, item in known.items():
        made.rules.set_policy_flags(row, (int(made.rules.flags[row]) & _LASTING) | _flags(item))
    return made


def _sides(base: Recommender, larger: Catalogue, items: Sequence[NewItem], first: int, tables: PostedTables) -> ItemSide:
    """What the models know of all posted items; made of those from the `first` on."""
    begin = len(base.catalogue) + first
    if first < len(items) or tables.last is None:
        codes = np.concatenate((larger.category[begin:], larger.brand[begin:, None]), 1)
        tables.last = base.rankers.item(larger.features[begin:], codes.astype(np.int32), _content(items[first:]))
    parts = {name: getattr(tables.last, name) for name in ("vector", "history", "light", "heavy")}
    nothing = first == len(items)
    columns = {name: tables.put(name, part[:0], first, part[:0] if nothing else part) for name, part in parts.items()}
    return ItemSide(**columns, behind=lambda name, base, rows: tables.put(name, base, first, rows(first)))


def _with_rows(catalogue: Catalogue, items: Sequence[NewItem], first: int, tables: PostedTables) -> Catalogue:
    """The catalogue with items at its end, of which those before the `first` are there. Nothing is counted of them, and nothing planned."""
    new = items[first:]
    titles = [item.title.encode() for item in items]
    ends = (int(catalogue.title_ends[-1]) if len(catalogue) else 0) + np.cumsum([len(title) for title in titles])
    letters = sum(len(title) for title in titles[:first])
    brands = tuple(dict.fromkeys((*catalogue.brand_names, *(item.brand for item in items if item.brand))))  # a brand of today is one, too
    rows = {
        "item_ids": np.array([item.item_id.encode() for item in new], "S"),
        "keys": np.array([item_key(item.item_id) for item in new], np.uint64),
        "category": _categories(catalogue, new),
        "brand": _codes(brands, [item.brand for item in new]),
        "created_day": np.array([_created_day(item) for item in new]),
        "price": np.array([np.nan if item.price is None else item.price for item in new], np.float32),
        "flags": np.array([_flags(item) for item in new], np.uint8),
        "title_ends": ends[first:],
        "features": np.full((len(new), catalogue.features.shape[1]), np.nan, np.float32),
    }
    columns = {name: tables.put(name, getattr(catalogue, name), first, part) for name, part in rows.items()}
    plan = np.zeros((*catalogue.plan_display.shape[:2], len(new)), np.uint8)
    return replace(
        catalogue,
        **columns,
        brand_names=brands,
        key_order=np.argsort(columns["keys"], kind="stable").astype(np.int32),
        title_bytes=tables.put("title_bytes", catalogue.title_bytes, letters, np.frombuffer(b"".join(titles[first:]), np.uint8)),
        plan_display=tables.put("plan_display", catalogue.plan_display, first, plan, 2),
        plan_mailer=tables.put("plan_mailer", catalogue.plan_mailer, first, plan, 2),
    )


def _categories(catalogue: Catalogue, items: Sequence[NewItem]) -> NDArray[np.int32]:
    """(n, levels) codes of each path, cut after each level (a missing one is its parent's); 0 where the catalogue does not know it."""
    paths = [item.category.split(PATH_SEPARATOR) if item.category else [] for item in items]
    if not items:
        return np.empty((0, CATEGORY_LEVELS), np.int32)
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
