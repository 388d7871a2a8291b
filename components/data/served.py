"""What was served comes back: events sent to a server and lists it showed, as rows of the four tables for the next learning.

`collect` takes a still copy of the logs, from SQLite or from Kafka, each event once; `append` puts what the tables lack behind their rows.
An event's id decides whether it is known: sent again, replayed or exported since, it changes nothing, and late ones keep their own time.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.data.duck import connect
from feature_repo.schema import EVENTS, TABLES, USERS
from serving.event_meanings import Ignored
from serving.events.log import LogUnavailable
from serving.events.sqlite import read_log
from serving.exposures.log import read_records
from serving.exposures.record import Record
from serving.exposures.shown import Exposure, user_key
from serving.exposures.tables import read_shown
from serving.messages import ERASE, SESSION, Event
from serving.system import System

if TYPE_CHECKING:
    import duckdb

ROWS_AT_ONCE = 50_000
KAFKA_SECONDS = 20.0  # without a message for so long, a broker is taken for gone
_EVENT_TYPES = {"string": "VARCHAR", "float": "DOUBLE", "timestamp": "TIMESTAMPTZ"}
_SHOWN = {
    "request_id": "VARCHAR", "user_key": "UBIGINT", "item_id": "VARCHAR", "position": "DOUBLE", "propensity": "DOUBLE",
    "bundle": "VARCHAR", "timestamp": "TIMESTAMPTZ", "place": "VARCHAR", "about": "VARCHAR",
}  # fmt: skip
_STATES = {"request_id": "VARCHAR", "user_id": "VARCHAR", "bundle": "VARCHAR", "day": "DOUBLE", "state": "BLOB"}
Row = tuple[Any, ...]


class NothingServed(ValueError):
    """The log that is to be learnt from cannot be read."""


def log_of(system: str, home: Path) -> str:
    """Where `shortlist serve` keeps the system's events under this home, as a log's address; empty where nothing was served."""
    folder = home.resolve() / "serving" / Path(system).stem
    return f"dir:{folder}" if (folder / "events.sqlite").is_file() else ""


def collect(url: str, out: Path) -> Path:
    """A still copy of an event log and of the exposures beside it: `out/events.parquet`, `shown.parquet`, and `states.parquet` with what a
    sample of the answers knew of their users. The same log, the same bytes.

    `url`: `dir:PATH` or `kafka://HOST:PORT/TOPIC`, the latter with `?exposures=PATH` where there are any; `still:PATH` is a copy made
    before, and given back. Raises `NothingServed`.
    """
    if url.startswith("still:"):
        return _still(Path(url.removeprefix("still:")))
    out.mkdir(parents=True, exist_ok=True)
    connection = connect()
    try:
        events, exposures, records = _opened(url)
        _table(connection, "events", {column.name: _EVENT_TYPES[column.kind] for column in EVENTS.columns}, map(event_row, events))
        _table(connection, "shown", _SHOWN, (row for exposure in exposures for row in shown_rows(exposure)))
        _table(connection, "states", _STATES, map(state_row, records))
    except (LogUnavailable, sqlite3.Error) as problem:
        raise NothingServed(f"what was served cannot be learnt from: {problem}") from problem
    for name, key in {"events": "event_id", "shown": "request_id, position", "states": "request_id"}.items():
        first = f"SELECT * EXCLUDE (nth) FROM {name} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY nth) = 1 ORDER BY {key}"
        connection.execute(f"COPY ({first}) TO {_text(out / f'{name}.parquet')} (FORMAT parquet, COMPRESSION zstd)")
    connection.close()
    return out


def _still(folder: Path) -> Path:
    for name in ("events", "shown"):
        if not (folder / f"{name}.parquet").is_file():
            raise NothingServed(f"{folder} holds no copy of what was served: {name}.parquet is missing")
    return folder


def _opened(url: str) -> tuple[Iterator[Event], Iterable[Exposure], Iterable[Record]]:
    """The events, the exposures and the full records of a log's address."""
    parts = urlsplit(url)
    if parts.scheme == "dir":
        folder = Path(url.removeprefix("dir:"))
        return read_sqlite(folder), read_shown(folder / "exposures"), read_records(folder / "exposures")
    if parts.scheme == "kafka":
        _, _, exposures = parts.query.partition("exposures=")
        beside = (read_shown(Path(exposures)), read_records(Path(exposures))) if exposures else ((), ())
        return read_kafka(parts.netloc, parts.path.strip("/")), *beside
    raise NothingServed(f"unknown event log {url!r}: expected dir:PATH or kafka://HOST:PORT/TOPIC")


def read_sqlite(folder: Path) -> Iterator[Event]:
    """The embedded log's events in the order they were acknowledged. Raises `LogUnavailable`."""
    return (event for _, event in read_log(folder))


def read_kafka(brokers: str, topic: str) -> Iterator[Event]:
    """The topic's events from its beginning to its end as it is now, one partition after another. Raises `LogUnavailable`."""
    import msgspec
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "shortlist-learning", "enable.auto.commit": False, "logger": None})
    try:
        known = consumer.list_topics(topic, timeout=KAFKA_SECONDS).topics[topic].partitions
        for number in sorted(known):
            low, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=KAFKA_SECONDS)
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
            at = low
            while at < end:
                message = consumer.poll(KAFKA_SECONDS)
                if message is None or message.error():
                    raise LogUnavailable(f"partition {number} of {topic} at {brokers} ends at {at} of {end}: check the brokers")
                at = int(message.offset() or 0) + 1
                yield msgspec.json.decode(message.value() or b"", type=Event)
    except (KafkaException, msgspec.DecodeError) as problem:
        raise LogUnavailable(f"the topic {topic} at {brokers} cannot be read ({problem}): check the brokers") from problem
    finally:
        consumer.close()


def event_row(event: Event) -> Row:
    """An event as the wire has it, in the order of the schema's columns; nothing where nothing was said."""
    said: dict[str, Any] = {"event_id": event.event_id, "event_type": event.event_type, "user_id": event.user_id, "item_id": event.item_id}
    said |= {"timestamp": event.timestamp, "value": event.value, "price": event.price}
    said |= {name: getattr(event, name) or None for name in ("session_id", "device_type")}
    context = event.context
    said |= {f"context_{name}": getattr(context, name) or None for name in ("page", "query", "store", "region", "request_id")}
    said["context_position"] = context.position
    return tuple(said[name] for name in EVENTS.names)


def shown_rows(exposure: Exposure) -> Iterator[Row]:
    """A row an item of one answer; `about` is empty for the user's own list."""
    from datetime import UTC, datetime

    from feature_repo.schema import SECONDS_A_DAY

    when = datetime.fromtimestamp(exposure.day * SECONDS_A_DAY, UTC)
    whole = exposure.bundle, when, exposure.place or None, exposure.about
    for item in exposure.items:
        yield exposure.request_id, exposure.user_key, item.item_id, item.position, item.propensity, *whole


def state_row(record: Record) -> Row:
    """What one answer knew of its user; the id is empty where consent is minimal, and of a session without a user."""
    asked = record.request
    return asked.request_id, "" if asked.user_id.startswith(SESSION) else asked.user_id, record.bundle, asked.at_day, record.state


def append(system: System, tables: Path, out: Path, served: Path | None = None) -> None:
    """The four tables with the rows served since behind their own, `out/shown.parquet` with what followed, and `served.json`.

    `served`: what `collect` wrote; without it the tables pass as they are. What cannot be a row (an item the catalogue lacks, a user whose
    consent is minimal) lies in `out/quarantine/served.parquet` with its reason.
    """
    out.mkdir(parents=True, exist_ok=True)
    taken = () if served is None else ("events.parquet", "users.parquet")
    for file in sorted(tables.rglob("*")):
        if file.is_file() and file.relative_to(tables).as_posix() not in taken:
            target = out / file.relative_to(tables)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(file, target)
    if served is None:
        return
    connection = connect()
    try:
        for name in TABLES:
            connection.execute(f"CREATE VIEW base_{name} AS SELECT * FROM read_parquet({_text(tables / f'{name}.parquet')})")
        for name in ("events", "shown"):
            connection.execute(
                f"CREATE VIEW served_{name} AS SELECT *{_whose(name, system)} FROM read_parquet({_text(served / f'{name}.parquet')})"
            )
        report = _appended(connection, system, out)
    finally:
        connection.close()
    (out / "served.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def _appended(connection: "duckdb.DuckDBPyConnection", system: System, out: Path) -> dict[str, Any]:
    """Write the tables that grow; what was taken, left out and why."""
    _name_users(connection, system)
    fresh = "SELECT * FROM served_events ANTI JOIN base_events USING (event_id)"
    if not isinstance(system.learning.meanings.get("impression"), Ignored):
        fresh += f" UNION ALL BY NAME {_impressions()}"
    connection.execute(
        f"""CREATE TABLE judged AS WITH fresh AS ({fresh})
        SELECT fresh.* REPLACE (coalesce(context_position, shown.position) AS context_position),
            CASE WHEN fresh.event_type = '{ERASE}' THEN 'the word that a user was deleted'
                 WHEN fresh.timestamp <= erased.timestamp THEN 'user_id: deleted since'
                 WHEN fresh.user_id = '' THEN 'user_id: of a session without a user'
                 WHEN base_items.item_id IS NULL THEN 'item_id: not in items'
                 WHEN base_users.consent = 'minimal' THEN 'user_id: consent is minimal' END AS reason
        FROM fresh
        LEFT JOIN served_shown AS shown ON shown.request_id = fresh.context_request_id AND shown.item_id = fresh.item_id
        LEFT JOIN base_items ON base_items.item_id = fresh.item_id
        LEFT JOIN base_users ON base_users.user_id = fresh.user_id
        LEFT JOIN (SELECT user_id, max(timestamp) AS timestamp FROM served_events WHERE event_type = '{ERASE}' GROUP BY user_id) AS erased
            ON erased.user_id = fresh.user_id AND fresh.user_id <> ''"""
    )
    events, users = (", ".join(f'"{name}"' for name in table.names) for table in (EVENTS, USERS))
    good = "FROM judged WHERE reason IS NULL"
    _copy(connection, f"SELECT {events} FROM base_events UNION ALL (SELECT {events} {good} ORDER BY timestamp, event_id)", out / "events")
    newcomers = f"""SELECT user_id, NULL::VARCHAR AS age_band, NULL::VARCHAR AS income_band, NULL::VARCHAR AS household,
        any_value(context_region ORDER BY timestamp) AS region, 'full' AS consent, min(timestamp) AS created_at
        {good} AND user_id NOT IN (SELECT user_id FROM base_users) GROUP BY user_id ORDER BY user_id"""
    new = _count(connection, f"SELECT count(*) FROM ({newcomers})")
    _copy(connection, f"SELECT {users} FROM base_users UNION ALL (SELECT {users} FROM ({newcomers}))", out / "users")
    (out / "quarantine").mkdir(exist_ok=True)
    _copy(connection, "SELECT * FROM judged WHERE reason IS NOT NULL ORDER BY event_id", out / "quarantine" / "served")
    _copy(connection, _followed(), out / "shown")
    reasons = connection.execute("SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY ALL ORDER BY ALL").fetchall()
    return {
        "events_in_log": _count(connection, "SELECT count(*) FROM served_events"),
        "appended": _count(connection, f"SELECT count(*) {good}"),
        "known_before": _count(connection, "SELECT count(*) FROM served_events SEMI JOIN base_events USING (event_id)"),
        "left_out": dict(reasons),
        "new_users": new,
        "shown": _count(connection, "SELECT count(*) FROM served_shown"),
    }


def _whose(name: str, system: System) -> str:
    """A session without a user is one, where a system's users are sessions."""
    takes = name == "events" and system.learning.asked == "amid sessions"
    return " REPLACE (coalesce(nullif(user_id, ''), session_id) AS user_id)" if takes else ""


def _name_users(connection: "duckdb.DuckDBPyConnection", system: System) -> None:
    """The table `named`: users by the key that exposures hold in place of their id."""
    asked_as = ("", SESSION) if system.learning.asked == "amid sessions" else ("",)
    ids = connection.execute("SELECT user_id FROM base_users UNION SELECT user_id FROM served_events").fetchall()
    _table(
        connection,
        "named",
        {"user_key": "UBIGINT", "user_id": "VARCHAR"},
        ((user_key(before + name), name) for (name,) in ids for before in asked_as),
    )


def _impressions() -> str:
    """What was shown to users who may be known, as events: their ids are made of the request's, so they too come once.

    Not of an answer whose client itself told what was seen of it: it may be less than was sent.
    """
    empty = ", ".join(f"NULL::DOUBLE AS {column.name}" for column in EVENTS.columns if column.name in ("value", "price"))
    name = "'shown:' || request_id || ':' || position::BIGINT"
    return f"""SELECT {name} AS event_id, 'impression' AS event_type, user_id, item_id, timestamp, {empty},
        place AS context_store, position AS context_position, request_id AS context_request_id
        FROM served_shown JOIN named USING (user_key) WHERE {name} NOT IN (SELECT event_id FROM base_events)
        AND request_id NOT IN (SELECT coalesce(context_request_id, '') FROM served_events WHERE event_type = 'impression')"""


def _followed() -> str:
    """Every shown item with its propensity and the kinds of events that came of it."""
    return """SELECT shown.request_id, named.user_id, shown.item_id, position, propensity, bundle, shown.timestamp,
        string_agg(DISTINCT event_type, ',' ORDER BY event_type) AS outcomes
        FROM served_shown AS shown LEFT JOIN named USING (user_key)
        LEFT JOIN served_events AS event ON event.context_request_id = shown.request_id AND event.item_id = shown.item_id
        GROUP BY ALL ORDER BY shown.request_id, position"""


def _table(connection: "duckdb.DuckDBPyConnection", name: str, columns: dict[str, str], rows: Iterable[Row]) -> None:
    """A table of the rows, numbered by `nth` in their order, taken in parts that fit in memory."""
    import pyarrow as pa

    declared = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    numbered = name in ("events", "shown", "states")
    connection.execute(f"CREATE TABLE {name} ({declared}{', nth BIGINT' if numbered else ''})")
    part: list[Row] = []
    count = 0

    arrow = {
        "VARCHAR": pa.string(),
        "DOUBLE": pa.float64(),
        "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
        "UBIGINT": pa.uint64(),
        "BLOB": pa.binary(),
    }

    def pour() -> None:
        nonlocal count
        values = zip(columns.items(), zip(*part, strict=True), strict=True)
        arrays = {column: pa.array(cells, arrow[kind]) for (column, kind), cells in values}
        pending = pa.table(arrays | ({"nth": pa.array(range(count, count + len(part)), pa.int64())} if numbered else {}))
        connection.register("pending", pending)
        connection.execute(f"INSERT INTO {name} SELECT * FROM pending")
        connection.unregister("pending")
        count += len(part)
        part.clear()

    for row in rows:
        part.append(row)
        if len(part) == ROWS_AT_ONCE:
            pour()
    if part:
        pour()


def _copy(connection: "duckdb.DuckDBPyConnection", query: str, place: Path) -> None:
    options = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
    connection.execute(f"COPY ({query}) TO {_text(place.with_suffix('.parquet'))} {options}")


def _count(connection: "duckdb.DuckDBPyConnection", query: str) -> int:
    ((number,),) = connection.execute(query).fetchall()
    return int(number)


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, target)
