"""Into the four tables: from the system's own data, or from a user's folder.

What cannot be read as the schema says is refused here, in one paragraph; what is merely wrong in a row is left to `validate`.
`context` may be absent: nothing was planned. So may `users`: they are those of the events then, and consent to everything. Where no event
says whose it is, but in which session (a shop before login, news), each session is a user.
"""

import difflib
import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.data.duck import connect, quoted
from components.data.read import ROWS_A_GROUP, BadData, arrow_schema, check_columns, parts_of, read_part
from feature_repo.schema import CONTEXT, EVENTS, TABLES, USERS, Table
from serving.system import System

MAY_BE_ABSENT = (USERS.name, CONTEXT.name)
_PERHAPS = tuple(replace(column, required=False) if column.name == "user_id" else column for column in EVENTS.columns)
OF_SESSIONS = {**TABLES, EVENTS.name: replace(EVENTS, columns=_PERHAPS)}  # the tables, whose events may be of sessions alone


def ingest(system: System, out: Path, data: Path | None = None) -> None:
    """Write `events items users context .parquet` and `ingest.json` (rows in and out) under `out`.

    `data`: a folder with the user's own tables; without it the system's own ingest runs. Raises `BadData`.
    """
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any]
    if data is None:
        report = {"from": system.ingest, "tables": _own(system, out)}
    else:
        if not data.is_dir():
            raise BadData(f"there is no folder {data}: give a folder that holds {', '.join(f'{name}.parquet' for name in TABLES)}")
        report = {"from": "data", "tables": {name: _normalised(table, data, out) for name, table in OF_SESSIONS.items()}}
        if _nobody_is_named(out / "events.parquet", report["tables"]["events"]["columns_left_out"]):
            report["users"] = "no event names one: each session is a user"
            _take_sessions_for_users(out)
    (out / "ingest.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def _own(system: System, out: Path) -> dict[str, Any]:
    """Run the system's ingest and hold what it wrote against the schema."""
    module, _, function = system.ingest.partition(":")
    counted = getattr(importlib.import_module(module), function)(out) or {}
    report = {}
    for name, table in TABLES.items():
        if name in MAY_BE_ABSENT and not parts_of(table, out):
            report[name] = _made(table, out)
            continue
        with open_table(table, out) as file:
            check_columns(table, file.schema_arrow)
            report[name] = {"rows_in": file.metadata.num_rows, "rows_out": file.metadata.num_rows, **counted.get(name, {})}
    return report


def open_table(table: Table, folder: Path) -> Any:
    """The table's one Parquet file, opened. Raises `BadData` when it is missing, unreadable, or empty where it may not be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{table.name}.parquet"
    if not path.is_file():
        raise _missing(table, path)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadData(f"{path} is not a complete Parquet file ({str(error)[:200]}): it may be cut short; write or copy it again") from error
    if not file.metadata.num_rows and not table.may_be_empty:
        file.close()
        raise _empty(table, path)
    return file


def _missing(table: Table, path: Path) -> BadData:
    return BadData(f"there is no table {table.name}: {path} is missing; write it with the columns {', '.join(table.names)}")


def _empty(table: Table, path: Path) -> BadData:
    return BadData(f"the table {table.name} ({path}) has no rows: give at least one, or leave out --data to use the system's own data")


def _normalised(table: Table, data: Path, out: Path) -> dict[str, Any]:
    """Write one table in the schema's columns, order and types, a row group at a time."""
    import pyarrow.parquet as pq

    parts = parts_of(table, data)
    if not parts and table.name in MAY_BE_ABSENT:
        return _made(table, out)
    if not parts:
        raise _missing(table, data / f"{table.name}.parquet")
    extra: set[str] = set()
    absent: set[str] = set()
    rows = 0
    with pq.ParquetWriter(out / f"{table.name}.parquet", arrow_schema(table), compression="zstd") as writer:
        for part in parts:
            more, fewer, batches = read_part(table, part)
            extra, absent = extra.union(more), absent.union(fewer)
            rows += sum(_written(writer, batch) for batch in batches)
    if not rows and not table.may_be_empty:
        raise _empty(table, parts[0].path if len(parts) == 1 else data / table.name)
    report: dict[str, Any] = {"rows_in": rows, "rows_out": rows, "columns_left_out": sorted(extra)}
    return report | ({"columns_absent": sorted(absent)} if absent else {})


def _written(writer: Any, batch: Any) -> int:
    writer.write_table(batch)
    return int(batch.num_rows)


def _made(table: Table, out: Path) -> dict[str, Any]:
    """A table that was not given: an empty one, or the users that the events name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    users = list(_users_of_events(out / "events.parquet")) if table.name == USERS.name else []
    rows = pa.Table.from_pylist([{"user_id": user, "consent": "full"} for user in users], schema=schema)
    pq.write_table(rows, out / f"{table.name}.parquet", compression="zstd")
    return {"rows_in": 0, "rows_out": len(users), "made": "from the events" if users else "empty: not given"}


def _users_of_events(events: Path) -> Iterator[str]:
    connection = connect()
    try:
        query = f"SELECT DISTINCT user_id FROM read_parquet({quoted(str(events))}) WHERE user_id <> '' ORDER BY user_id"
        yield from (user for (user,) in connection.execute(query).fetchall())
    finally:
        connection.close()


def _nobody_is_named(events: Path, unknown: list[str]) -> bool:
    """Whether no event says whose it is, but some in which session it was. Raises `BadData` where they say neither, or perhaps in one of
    the `unknown` columns."""
    connection = connect()
    try:
        ((users, sessions),) = connection.execute(
            f"SELECT count(*) FILTER (user_id <> ''), count(*) FILTER (session_id <> '') FROM read_parquet({quoted(str(events))})"
        ).fetchall()
    finally:
        connection.close()
    near = difflib.get_close_matches("user_id", unknown, n=1)
    if not users and near:
        raise BadData(f"no event has a 'user_id': rename {near[0]!r} to it, or leave that column out where users are not known")
    if not users and not sessions:
        raise BadData(f"no event of {events} says whose it is: give the column 'user_id', or 'session_id' where users are not known")
    return not users


def _take_sessions_for_users(out: Path) -> None:
    """Events get their session's id as their user's; the users are those."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    events, named, schema = out / "events.parquet", out / "events-named.parquet", arrow_schema(EVENTS)
    place = schema.get_field_index("user_id")
    with pq.ParquetFile(events) as file, pq.ParquetWriter(named, schema, compression="zstd") as writer:
        for batch in file.iter_batches(ROWS_A_GROUP):
            rows = pa.Table.from_batches([batch], schema)
            writer.write_table(rows.set_column(place, schema.field(place), rows["session_id"]))
    named.replace(events)
    _made(USERS, out)


def none_of_its_own(out: Path) -> None:
    """The ingest of a system that reads only what `--data DIR` gives. Raises `BadData`."""
    raise BadData(f"this system has no data of its own to write into {out}: give a folder with --data DIR")
