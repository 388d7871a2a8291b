"""What the four tables hold, counted once: what `shortlist new` writes a system from, and `shortlist check` holds a system against."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data.duck import connect, quoted
from components.data.event_types import words_of
from feature_repo.schema import CATEGORY_LEVELS, PATH_SEPARATOR, TABLES

_GRADED = {"rating", "rate", "rated", "stars", "score", "review"}
FEW_EVENTS = 1000  # of a type: enough to learn from, however many others there are
MOST_GRADES = 11  # different values of a rating: half stars from 0 to 5


@dataclass(frozen=True)
class Facts:
    """Counts of the tables as `ingest` writes them."""

    rows: Mapping[str, int]  # by table
    empty: Mapping[str, tuple[str, ...]]  # by table: columns without a value
    types: Mapping[str, int]  # events by type, most first
    again: Mapping[str, float]  # by type: the share of events of a user and an item that had one before
    grades: Mapping[str, float]  # by type that is a rating: the middle one
    usual: Mapping[str, float]  # by type: the middle one of the values above 0, where there are any
    levels: tuple[int, ...]  # different category paths that reach each level
    brands: int
    days: int  # from the first event's to the last's, both counted
    sessions: bool  # each user is one session, and hardly any lasts for more than a day: nobody comes back


def facts_of(tables: Path) -> Facts:
    """Count the tables in the folder."""
    connection = connect()
    try:
        files = {name: f"read_parquet({quoted(str(tables / f'{name}.parquet'))})" for name in TABLES}
        held = {name: _held(connection, name, file) for name, file in files.items()}
        types = dict(
            connection.execute(
                f"SELECT event_type, count(*) AS n FROM {files['events']} WHERE event_type <> '' GROUP BY ALL ORDER BY n DESC, event_type"
            ).fetchall()
        )
        return Facts(
            rows={name: rows for name, (rows, _) in held.items()},
            empty={name: tuple(column for column, count in counts.items() if not count) for name, (_, counts) in held.items()},
            types=types,
            again=dict(connection.execute(_AGAIN.format(events=files["events"])).fetchall()),
            grades={
                name: middle for name, middle in connection.execute(_GRADES.format(events=files["events"])).fetchall() if _is_graded(name)
            },
            usual=dict(connection.execute(_USUAL.format(events=files["events"])).fetchall()),
            levels=_levels(connection, files["items"]),
            brands=_number(connection, f"SELECT count(DISTINCT brand) FROM {files['items']}"),
            days=_number(connection, f"SELECT coalesce(date_diff('day', min(timestamp), max(timestamp)) + 1, 0) FROM {files['events']}"),
            sessions=not _number(connection, _OTHERS.format(events=files["events"])),
        )
    finally:
        connection.close()


_AGAIN = (
    """SELECT event_type, 1 - count(DISTINCT hash(user_id, item_id)) / count(*) FROM {events} WHERE event_type <> '' GROUP BY event_type"""
)
_GRADES = f"""SELECT event_type, median(value) FROM {{events}} WHERE event_type <> '' GROUP BY event_type
HAVING count(value) >= 0.9 * count(*) AND count(DISTINCT value) BETWEEN 2 AND {MOST_GRADES}"""

_OTHERS = """SELECT (count(*) FILTER (other) > 0 OR count(*) FILTER (long) > 0.1 * count(*))::INTEGER FROM (
    SELECT bool_or(user_id IS DISTINCT FROM session_id) AS other, max(timestamp) - min(timestamp) > INTERVAL 1 DAY AS long
    FROM {events} GROUP BY user_id)"""

_USUAL = "SELECT event_type, median(value) FROM {events} WHERE event_type <> '' AND value > 0 GROUP BY event_type"


def _is_graded(name: str) -> bool:
    return bool(words_of(name) & _GRADED)


def _held(connection: Any, name: str, file: str) -> tuple[int, dict[str, int]]:
    """Rows of a table, and the values each column holds."""
    columns = TABLES[name].names
    counts = ", ".join(f'count("{column}")' for column in columns)
    ((rows, *values),) = connection.execute(f"SELECT count(*), {counts} FROM {file}").fetchall()
    return rows, dict(zip(columns, values, strict=True))


def _levels(connection: Any, items: str) -> tuple[int, ...]:
    parts = f"string_split(category, {quoted(PATH_SEPARATOR)})"
    counts = ", ".join(
        f"count(DISTINCT array_to_string({parts}[1:{level + 1}], '>')) FILTER (len({parts}) > {level})" for level in range(CATEGORY_LEVELS)
    )
    (found,) = connection.execute(f"SELECT {counts} FROM {items}").fetchall()
    return tuple(map(int, found))


def _number(connection: Any, query: str) -> int:
    ((number,),) = connection.execute(query).fetchall()
    return int(number)
