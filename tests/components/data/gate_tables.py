"""Tables of a few rows for the data gate: good ones, in which a test says what is to be wrong."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.read import arrow_schema
from feature_repo.schema import TABLES

MONDAY = datetime(2024, 3, 4, 12, tzinfo=UTC)
Row = Mapping[str, Any]
GOOD: Mapping[str, Row] = {
    "items": {"item_id": "i0"},
    "users": {"user_id": "u0", "consent": "full"},
    "events": {"event_id": "e0", "event_type": "click", "user_id": "u0", "item_id": "i0", "timestamp": MONDAY},
    "context": {"item_id": "i0", "place": "north", "valid_from": MONDAY, "valid_until": MONDAY.replace(day=5)},
}


def write(folder: Path, table: str, rows: list[Row]) -> Path:
    """Write rows of one table, what is not given being null."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table}.parquet"
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=arrow_schema(TABLES[table])), path)
    return path


def rows_of(table: str, *changes: Row) -> list[Row]:
    """The good row and, with a key of its own, one more for each change."""
    key = TABLES[table].key[0]
    made: list[Row] = [GOOD[table]]
    for number, change in enumerate(changes, 1):
        made.append({**GOOD[table], **({key: f"{key[0]}{number}"} if table != "context" else {"place": f"place {number}"}), **change})
    return made


def events(count: int, **changes: Mapping[int, Any]) -> list[Row]:
    """So many events, a minute apart; of a column some values are others: column={row: value}."""
    made: list[dict[str, Any]] = [
        {**GOOD["events"], "event_id": f"e{n}", "timestamp": MONDAY.replace(hour=n // 60 % 24, minute=n % 60)} for n in range(count)
    ]
    for column, values in changes.items():
        for row, value in values.items():
            made[row][column] = value
    return made


def write_all(folder: Path, **tables: list[Row]) -> Path:
    """All four, those not given being the one good row."""
    for table, good in GOOD.items():
        write(folder, table, tables.get(table, [good]))
    return folder
