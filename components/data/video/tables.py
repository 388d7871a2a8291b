"""What the world did as the four tables of `feature_repo/schema.py`; nothing of the truth is in them.

Event types beside the schema's: `share`, `comment`, `subscribe` (to the channel of the video) and `survey` (`value`: 1 to 5). A search is a
`video_view` on the page "search" with its words; `watch` holds the seconds watched.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.read import arrow_schema
from components.data.video import words
from components.data.video.catalogue import Library
from components.data.video.live import ShownPage, World
from components.data.video.policies import Usual
from feature_repo.schema import EVENTS, ITEMS, PATH_SEPARATOR, USERS

START = datetime(2025, 3, 3, tzinfo=UTC)  # the world's day 0, a Monday
TYPES = ("impression", "click", "watch", "like", "share", "comment", "subscribe", "survey", "video_view")
_DAY = 86_400_000_000  # microseconds


def moment(day: float) -> datetime:
    """A day of the world as a time."""
    return START + timedelta(days=day)


def write_tables(world: World, out: Path) -> dict[str, int]:
    """Let the world live its history as the platform usually decides, and write it; rows of each table."""
    out.mkdir(parents=True, exist_ok=True)
    rows = 0
    with pq.ParquetWriter(out / "events.parquet", arrow_schema(EVENTS), compression="zstd") as writer:
        for events in history(world):
            writer.write_table(events)
            rows += events.num_rows
    tables = {"items": items_table(world.library, 0, world.there), "users": users_table(world)}
    for name, table in tables.items():
        pq.write_table(table, out / f"{name}.parquet", compression="zstd")
    return {"events": rows, **{name: table.num_rows for name, table in tables.items()}}


def history(world: World) -> Iterator[pa.Table]:
    """The events of the world's days until its history ends, some hours at a time; first what users were subscribed to before."""
    yield _first_subscriptions(world)
    policy = Usual(world)
    while world.day < world.size.days - 1e-9:
        yield events_table(world, world.step(policy).pages)


def events_table(world: World, pages: Sequence[ShownPage]) -> pa.Table:
    """The events of those pages in the order of time."""
    parts = [part for page in pages for part in _of_page(world, page)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    return _arrow(columns) if columns else arrow_schema(EVENTS).empty_table()


def _of_page(world: World, page: ShownPage) -> Iterator[dict[str, NDArray[Any]]]:
    """Of each type the columns of its events."""
    happened, rows = page.happened, page.slates.rows
    looked = happened.at
    ended = looked + happened.watched
    kinds: dict[str, tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32] | None]] = {
        "impression" if page.number else "video_view": (happened.shown, looked, None),
        "click": (happened.clicked & (page.number > 0), looked + 1, None),
        "watch": (happened.clicked, ended, np.round(happened.watched, 1)),
        "like": (happened.liked, ended, None),
        "share": (happened.shared, ended + 1, None),
        "comment": (happened.commented, ended + 2, None),
        "subscribe": (happened.subscribed, ended, None),
        "survey": (happened.survey > 0, ended + 3, happened.survey.astype(np.float32)),
    }
    requests = np.array(page.slates.request_ids or [""] * len(rows), dtype=object)
    for name, (mask, seconds, values) in kinds.items():
        s, k = np.nonzero(mask)
        yield {
            "type": np.full(len(s), TYPES.index(name), np.int8),
            "user": page.visits.user[s],
            "item": rows[s, k],
            "time": _microseconds(page.visits.day[s]) + (seconds[s, k].astype(np.float64) * 1e6).astype(np.int64),
            "session": page.session[s],
            "page": np.full(len(s), page.number, np.int8),
            "position": k.astype(np.int32),
            "device": page.visits.device[s],
            "value": np.full(len(s), np.nan, np.float32) if values is None else values[s, k],
            "region": world.crowd.region[page.visits.user[s]],
            "query": np.where(page.number > 0, -1, world.library.label[rows[s, k]]),
            "request": requests[s],
        }


def _first_subscriptions(world: World) -> pa.Table:
    """One `subscribe` a subscription of before, with the channel's newest video of then."""
    user, place = np.nonzero(world.memory.channel >= 0)
    newest = world.newest(world.by_channel, world.memory.channel[user, place], np.zeros(len(user), int))
    known = (newest >= 0) & (world.crowd.joined_day[user] <= world.size.days)
    user, newest = user[known], newest[known]
    count = len(user)
    none = np.full(count, -1, np.int32)
    return _arrow(
        {
            "type": np.full(count, TYPES.index("subscribe"), np.int8),
            "user": user,
            "item": newest,
            "time": _microseconds(np.maximum(np.maximum(world.crowd.joined_day[user], world.library.created_day[newest]), 0)),
            "session": -1 - np.arange(count),
            "page": np.zeros(count, np.int8),
            "position": np.zeros(count, np.int32),
            "device": none,
            "value": np.full(count, np.nan, np.float32),
            "region": world.crowd.region[user],
            "query": none,
            "request": np.full(count, "", dtype=object),
        }
    )


def _arrow(columns: dict[str, NDArray[Any]]) -> pa.Table:
    """Codes as the schema's columns, in the order of time."""
    order = np.lexsort((columns["type"], columns["position"], columns["session"], columns["time"]))
    columns = {name: values[order] for name, values in columns.items()}
    session, home = _text(columns["session"]), columns["page"] > 0
    kind = _named(TYPES, columns["type"])
    parts = (pc.binary_join_element_wise("s", session, ""), _text(columns["page"]), _text(columns["position"]), kind)
    made = {
        "event_id": pc.binary_join_element_wise(*parts, "-"),
        "event_type": kind,
        "user_id": _id("u", columns["user"], 7),
        "item_id": _id("v", columns["item"], 8),
        "timestamp": pa.array(columns["time"], pa.timestamp("us", "UTC")),
        "session_id": pc.if_else(columns["session"] >= 0, pc.binary_join_element_wise("s", session, ""), None),
        "device_type": _named(words.DEVICES, columns["device"]),
        "value": pa.array(columns["value"].astype(np.float64), mask=np.isnan(columns["value"])),
        "context_page": _named(("search", "home"), np.where(columns["session"] >= 0, home, -1)),
        "context_query": _named([topic.lower() for topic in words.TOPICS], columns["query"]),
        "context_position": pa.array(columns["position"].astype(np.float64), mask=~home),
        "context_region": _named(words.REGIONS, columns["region"]),
        "context_request_id": pa.array(columns["request"], pa.string(), mask=columns["request"] == ""),
    }
    schema, count = arrow_schema(EVENTS), len(order)
    return pa.table([made.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


def items_table(library: Library, first: int, last: int) -> pa.Table:
    """The videos from row `first` to before `last`, as they are uploaded."""
    some = slice(first, last)
    label = library.label[some]
    department, topic = _named(words.DEPARTMENT_OF, label), _named(words.TOPICS, label)
    narrow = pc.binary_join_element_wise(topic, _named(words.KINDS, library.kind[some]), " ")
    made = {
        "item_id": _id("v", np.arange(first, last), 8),
        "category": pc.binary_join_element_wise(department, topic, narrow, PATH_SEPARATOR),
        "brand": _id("c", library.channel[some], 5),
        "title": _titles(library, some),
        "created_at": pa.array(_microseconds(library.created_day[some]), pa.timestamp("us", "UTC")),
        "attributes": _attributes(library, some),
        "policy_flags": pa.array(library.flag[some], pa.string(), mask=library.flag[some] == ""),
    }
    schema = arrow_schema(ITEMS)
    return pa.table([made.get(field.name, pa.nulls(len(label), field.type)) for field in schema], schema=schema)


def _titles(library: Library, some: slice) -> pa.Array:
    """Readable, and of the label alone: a title says no more than the category does."""
    random = np.random.default_rng(library.title_seed)  # the same words for a row whichever rows are asked for
    opening, flair = (random.integers(0, len(among), len(library))[some] for among in (words.OPENINGS, words.FLAIRS))
    part = random.integers(1, 100, len(library))[some]
    topic, kind = _named(words.TOPICS, library.label[some]), _named([kind.lower() for kind in words.KINDS], library.kind[some])
    named = pc.binary_join_element_wise(_named(words.OPENINGS, opening), _named(words.FLAIRS, flair), pc.utf8_lower(topic), kind, " ")
    return pc.binary_join_element_wise(named, _text(part), ", part ")


def _attributes(library: Library, some: slice) -> pa.Array:
    """JSON: channel, language, duration, tags (the label; what else it is about, or in one of four something else), picture, sound."""
    random = np.random.default_rng((library.title_seed, 1))
    other = np.where(random.random(len(library)) < 0.25, random.integers(0, len(words.TOPICS), len(library)), library.second)[some]
    lower = [topic.lower() for topic in words.TOPICS]
    pieces: list[Any] = []
    for text, values in (
        ('{"duration_seconds": ', _text(library.seconds[some].astype(np.int64))),
        (', "fps": ', _text(library.fps[some])),
        (', "language": "', _named(words.LANGUAGES, library.language[some])),
        ('", "resolution": "', _named(words.RESOLUTIONS, library.resolution[some])),
        ('", "sound": "', _named(words.SOUNDS, library.sound[some])),
        ('", "tags": ["', _named(lower, library.label[some])),
        ('", "', _named(lower, other)),
    ):
        pieces += [text, values]
    return pc.binary_join_element_wise(*pieces, '"]}', "")


def users_table(world: World) -> pa.Table:
    """The users who have joined by now."""
    crowd = world.crowd
    rows = np.flatnonzero(crowd.joined_day <= world.day)
    made = {
        "user_id": _id("u", rows, 7),
        "age_band": _named(words.AGE_BANDS, crowd.age[rows]),
        "region": _named(words.REGIONS, crowd.region[rows]),
        "consent": pa.array(crowd.consent[rows], pa.string()),
        "created_at": pa.array(_microseconds(crowd.joined_day[rows]), pa.timestamp("us", "UTC")),
    }
    schema = arrow_schema(USERS)
    return pa.table([made.get(field.name, pa.nulls(len(rows), field.type)) for field in schema], schema=schema)


def _microseconds(days: NDArray[np.float64]) -> NDArray[np.int64]:
    return int(START.timestamp()) * 1_000_000 + (days * _DAY).astype(np.int64)


def _named(names: Sequence[str], codes: NDArray[Any]) -> pa.Array:
    """Each code's name; null for -1."""
    codes = np.asarray(codes, np.int32)
    return pa.array(list(names), pa.string()).take(pa.array(codes, mask=codes < 0))


def _text(numbers: NDArray[Any]) -> pa.Array:
    return pc.cast(pa.array(np.asarray(numbers)), pa.string())


def _id(letter: str, rows: NDArray[Any], width: int) -> pa.Array:
    return pc.binary_join_element_wise(letter, pc.utf8_lpad(_text(rows), width, "0"), "")
