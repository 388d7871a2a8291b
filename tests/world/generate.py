"""A tiny shop whose truth is known, simulated into the four tables: what a perfect recommender would say is written beside them.

Four taste groups, each with three favourite categories of twelve. Every user
* eats four staples, from the group's categories, each again after its own number of days: buy-again finds them;
* discovers other items of the group's categories, popular ones first: item-item and the towers find those;
* follows promotions: what is planned for the user's place this week is discovered `PROMOTION_LIFT` times as often.
In each category one item is never sold and one is new, entering ten days before the last week. One item is recalled and one out
of stock, both once popular. The last `STRANGERS` users came late: no basket at all, one, two.
The last week is there to be judged on: `World.until` is its first moment.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.schema import PATH_SEPARATOR, TABLES

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
GROUPS = 4
CATEGORIES = 12
PLACES = ("north", "east", "south")
BRANDS = 6
STAPLES = 4
STRANGERS = 3
PROMOTION_LIFT = 5.0
DISCOVERIES_A_VISIT = 0.6
NOISE = 0.05  # share of discoveries outside the group's categories
NEW_DAYS = 10  # new items enter this long before the last week


@dataclass(frozen=True)
class World:
    """Where the tables lie and what is true in them."""

    folder: Path  # events items users context .parquet
    until: datetime  # first moment of the last week
    user_group: dict[str, int]
    item_group: dict[str, int]
    staples: dict[str, tuple[str, ...]]  # of each user who has baskets
    strangers: tuple[str, ...]  # users with 0, 1, 2 baskets
    recalled: str
    out_of_stock: str
    never_sold: tuple[str, ...]
    new_items: tuple[str, ...]


@dataclass(frozen=True)
class _Shelf:
    """Items by number. Shapes: I items, W weeks, P places."""

    category: np.ndarray  # (I,)
    appeal: np.ndarray  # (I,) how often an item is discovered; 0: never sold
    enters: np.ndarray  # (I,) day it enters
    leaves: np.ndarray  # (I,) day its sales end
    planned: np.ndarray  # (W, P, I) 0 none, 1 display, 2 mailer
    flags: tuple[str, ...]  # (I,)


def write_world(folder: Path, seed: int = 0, users: int = 60, items: int = 120, weeks: int = 12) -> World:
    """Simulate the tables into `folder`; the same arguments write the same bytes. `items` is rounded down to a multiple of 12."""
    random = np.random.default_rng(seed)
    shelf = _stock(random, items // CATEGORIES, weeks)
    staples = [_staples(random, shelf, user % GROUPS) for user in range(users)]
    events = [event for user in range(users) for event in _life(random, shelf, user, users, staples[user], weeks)]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, "events", _event_rows(random, sorted(events)))
    _write(folder, "items", _item_rows(shelf, weeks))
    _write(folder, "users", _user_rows(users, weeks))
    _write(folder, "context", _context_rows(shelf))
    return _truth(folder, shelf, staples, users, weeks)


def ingest(out: Path) -> None:
    """The system's ingest function: the default world, from nothing."""
    write_world(Path(out))


def _stock(random: np.random.Generator, per_category: int, weeks: int) -> _Shelf:
    """In each category: item 0 is its most popular, the last but one is new, the last never sold."""
    place_in_category = np.tile(np.arange(per_category), CATEGORIES)  # (I,)
    category = np.repeat(np.arange(CATEGORIES), per_category)  # (I,)
    last_week = (weeks - 1) * 7
    new = place_in_category == per_category - 2
    appeal = 1.0 / (1.0 + place_in_category)
    appeal[new] = 0.6
    appeal[place_in_category == per_category - 1] = 0.0
    flags = [""] * len(category)
    flags[per_category] = "recalled"  # item 0 of category 1
    flags[6 * per_category] = "out_of_stock"  # item 0 of category 6
    planned = np.where(random.random((weeks, len(PLACES), len(category))) < 0.08, random.integers(1, 3, (weeks, 1, len(category))), 0)
    planned[:, :, appeal == 0] = 0
    return _Shelf(
        category=category,
        appeal=appeal,
        enters=np.where(new, last_week - NEW_DAYS, 0),
        leaves=np.where(np.array(flags) != "", last_week - 14, weeks * 7),
        planned=planned,
        flags=tuple(flags),
    )


def _favourites(group: int) -> np.ndarray:
    """A group's three categories, one in each department: group 1 likes categories 1, 5 and 9."""
    return np.arange(group, CATEGORIES, GROUPS)


def _staples(random: np.random.Generator, shelf: _Shelf, group: int) -> list[int]:
    """Four items that were there from the first day and still are, from the group's categories in turn."""
    lasting = (shelf.appeal > 0) & (shelf.enters == 0) & (np.array(shelf.flags) == "")
    turns = np.resize(_favourites(group), STAPLES)
    chosen: list[int] = []
    for category in turns:
        open_items = [item for item in np.flatnonzero(lasting & (shelf.category == category)) if item not in chosen]
        chosen.append(int(random.choice(open_items)))
    return chosen


def _life(random: np.random.Generator, shelf: _Shelf, user: int, users: int, staples: list[int], weeks: int) -> list[tuple]:
    """One user's (day, user, item, kind, visit) events, day as a fraction since START. A visit is every two to four days."""
    baskets = user - (users - STRANGERS) if user >= users - STRANGERS else None  # 0, 1, 2 for strangers
    day = float(random.uniform(0, 3)) if baskets is None else (weeks - 1) * 7 - 6.0
    cycle = random.choice([3.0, 4.0, 6.0], STAPLES)  # days until a staple is eaten up
    due = random.uniform(0, 4, STAPLES) + day
    events: list[tuple] = []
    visit = 0
    while day < weeks * 7 and (baskets is None or visit < baskets):
        bought = [staples[s] for s in range(STAPLES) if due[s] <= day or baskets is not None]
        due = np.where(due <= day, day + cycle, due)
        bought += [item for item in _discoveries(random, shelf, user, day) if item not in bought]
        for item in bought:
            if random.random() < 0.3:
                events.append((day - 0.02, user, item, "click", visit))
            events.append((day, user, item, "purchase", visit))
        day += float(random.uniform(2, 4))
        visit += 1
    return events


def _discoveries(random: np.random.Generator, shelf: _Shelf, user: int, day: float) -> list[int]:
    """Items found in a visit: by appeal, planned ones more often, nearly all from the group's categories."""
    planned = shelf.planned[int(day // 7), user % len(PLACES)] > 0  # (I,)
    likes = np.isin(shelf.category, _favourites(user % GROUPS))
    weight = shelf.appeal * np.where(planned, PROMOTION_LIFT, 1.0) * ((shelf.enters <= day) & (day < shelf.leaves))
    found = []
    for _ in range(random.poisson(DISCOVERIES_A_VISIT)):
        inside = likes if random.random() >= NOISE else ~likes
        found.append(int(random.choice(len(weight), p=weight * inside / (weight * inside).sum())))
    return sorted(set(found))


def user_name(user: int) -> str:
    return f"u{user:03d}"


def item_name(item: int) -> str:
    return f"i{item:03d}"


def _moment(day: float) -> datetime:
    return START + timedelta(seconds=round(day * 86_400))


def _price(shelf: _Shelf, item: int) -> float:
    return round(1.0 + 0.5 * float(shelf.category[item] % 5) + 0.1 * (item % 7), 2)


def _event_rows(random: np.random.Generator, events: list[tuple]) -> list[dict]:
    return [
        {
            "event_id": f"e{number:06d}",
            "event_type": kind,
            "user_id": user_name(user),
            "item_id": item_name(item),
            "timestamp": _moment(day),
            "session_id": f"{user_name(user)}-{visit}",
            "device_type": "store" if kind == "purchase" else "mobile",
            "value": float(random.integers(1, 4)) if kind == "purchase" else None,
            "price": round(1.0 + 0.1 * (item % 7), 2) if kind == "purchase" else None,
            "context_store": PLACES[user % len(PLACES)],
            "context_region": ("left", "right")[user % 2],
        }
        for number, (day, user, item, kind, visit) in enumerate(events)
    ]


def _item_rows(shelf: _Shelf, weeks: int) -> list[dict]:
    return [
        {
            "item_id": item_name(item),
            "category": PATH_SEPARATOR.join((f"department {c // GROUPS}", f"category {c}", f"type {c}.{item % 2}")),
            "brand": f"brand {(item + c) % BRANDS}",
            "title": f"Snack {item} of category {c}",
            "price": _price(shelf, item),
            "created_at": _moment(float(shelf.enters[item])),
            "attributes": f'{{"size": "{100 + 50 * (item % 4)} g"}}',
            "policy_flags": shelf.flags[item] or None,
        }
        for item, c in enumerate(shelf.category)
    ]


def _user_rows(users: int, weeks: int) -> list[dict]:
    return [
        {
            "user_id": user_name(user),
            "age_band": ("19-34", "35-54", "55+")[user % 3],
            "income_band": None if user % 5 == 0 else ("low", "high")[user % 2],
            "household": f"{1 + user % 4} persons",
            "region": ("left", "right")[user % 2],
            "consent": "minimal" if user == users - STRANGERS else "full",
            "created_at": START if user < users - STRANGERS else _moment((weeks - 1) * 7 - 6.5),
        }
        for user in range(users)
    ]


def _context_rows(shelf: _Shelf) -> list[dict]:
    return [
        {
            "item_id": item_name(item),
            "place": PLACES[place],
            "valid_from": _moment(7.0 * week),
            "valid_until": _moment(7.0 * week + 7),
            "display": "end of aisle" if shelf.planned[week, place, item] == 1 else None,
            "mailer": "front page" if shelf.planned[week, place, item] == 2 else None,
        }
        for week, place, item in zip(*np.nonzero(shelf.planned), strict=True)
    ]


def _write(folder: Path, name: str, rows: list[dict]) -> None:
    arrow = {"string": pa.string(), "float": pa.float64(), "timestamp": pa.timestamp("us", tz="UTC")}
    columns = TABLES[name].columns
    table = {column.name: pa.array([row.get(column.name) for row in rows], arrow[column.kind]) for column in columns}
    pq.write_table(pa.table(table), folder / f"{name}.parquet")


def _truth(folder: Path, shelf: _Shelf, staples: list[list[int]], users: int, weeks: int) -> World:
    strangers = range(users - STRANGERS, users)
    return World(
        folder=folder,
        until=START + timedelta(days=7 * (weeks - 1)),
        user_group={user_name(user): user % GROUPS for user in range(users)},
        item_group={item_name(item): int(c) % GROUPS for item, c in enumerate(shelf.category)},
        staples={user_name(user): tuple(item_name(item) for item in staples[user]) for user in range(users - STRANGERS)},
        strangers=tuple(user_name(user) for user in strangers),
        recalled=item_name(shelf.flags.index("recalled")),
        out_of_stock=item_name(shelf.flags.index("out_of_stock")),
        never_sold=tuple(item_name(item) for item in np.flatnonzero(shelf.appeal == 0)),
        new_items=tuple(item_name(item) for item in np.flatnonzero(shelf.enters > 0)),
    )
