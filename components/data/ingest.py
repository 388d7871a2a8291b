"""Into the four tables: from the system's own data, or from a user's folder of four Parquet files.

What cannot be read as the schema says is refused here, in one paragraph; what is merely wrong in a row is left to `validate`.
"""

import difflib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feature_repo.schema import TABLES, Column, Table
from serving.system import System

ROWS_A_GROUP = 122_880


class BadData(ValueError):
    """The given data are not the four tables. The message says which, why, and what to do."""


def ingest(system: System, out: Path, data: Path | None = None) -> None:
    """Write `events items users context .parquet` and `ingest.json` (rows in and out) under `out`.

    `data`: a folder with the user's own four tables; without it the system's own ingest runs. Raises `BadData`.
    """
    out.mkdir(parents=True, exist_ok=True)
    if data is None:
        report = {"from": system.ingest, "tables": _own(system, out)}
    else:
        if not data.is_dir():
            raise BadData(f"there is no folder {data}: give a folder that holds {', '.join(f'{name}.parquet' for name in TABLES)}")
        report = {"from": "data", "tables": {name: _normalised(table, data, out) for name, table in TABLES.items()}}
    (out / "ingest.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def _own(system: System, out: Path) -> dict[str, Any]:
    """Run the system's ingest and hold what it wrote against the schema."""
    module, _, function = system.ingest.partition(":")
    counted = getattr(importlib.import_module(module), function)(out) or {}
    report = {}
    for name, table in TABLES.items():
        with open_table(table, out) as file:
            check_columns(table, file.schema_arrow)
            report[name] = {"rows_in": file.metadata.num_rows, "rows_out": file.metadata.num_rows, **counted.get(name, {})}
    return report


def open_table(table: Table, folder: Path) -> Any:
    """The table's Parquet file, opened. Raises `BadData` when it is missing, unreadable, or empty where it may not be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{table.name}.parquet"
    if not path.is_file():
        raise BadData(f"there is no table {table.name}: {path} is missing; write it with the columns {', '.join(table.names)}")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    if not file.metadata.num_rows and not table.may_be_empty:
        file.close()
        raise BadData(f"the table {table.name} ({path}) has no rows: give at least one, or leave out --data to use the system's own data")
    return file


def _unreadable(path: Path, error: Exception) -> BadData:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return BadData(f"{path} is not a complete Parquet file ({first}): it may be cut short; write or copy it again")


def check_columns(table: Table, schema: Any) -> list[str]:
    """Names of columns the schema does not know. Raises `BadData` for a missing column or one of another kind."""
    for column in table.columns:
        if column.name not in schema.names:
            near = difflib.get_close_matches(column.name, set(schema.names) - set(table.names), n=1)
            hint = (
                f"rename {near[0]!r} to it" if near else "add it" + ("" if column.required else ", filled with nulls if nothing is known")
            )
            raise BadData(f"the table {table.name} lacks the column {column.name!r} ({column.meaning}): {hint}")
        wrong = _mismatch(column, schema.field(column.name).type)
        if wrong:
            raise BadData(f"the column {column.name!r} of the table {table.name} is {schema.field(column.name).type}, expected {wrong}")
    return sorted(set(schema.names) - set(table.names))


def _mismatch(column: Column, found: Any) -> str:
    """What was expected instead of `found`, with the next step; empty when it fits."""
    from pyarrow import types

    if types.is_null(found):
        return ""
    if column.kind == "string":
        value = found.value_type if types.is_dictionary(found) else found
        fits = types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
        return "" if fits else "text (a Parquet string): cast it before writing"
    if column.kind == "float":
        fits = types.is_floating(found) or types.is_integer(found) or types.is_decimal(found)
        return "" if fits else "a number: cast it before writing"
    if not types.is_timestamp(found):
        return "a timestamp with a time zone: convert it before writing, for example with pandas.to_datetime(…, utc=True)"
    return "" if found.tz else "an aware timestamp: it is naive, without a time zone; localise it before writing, for example to UTC"


def _normalised(table: Table, data: Path, out: Path) -> dict[str, Any]:
    """Copy one table in the schema's columns, order and types, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    with open_table(table, data) as file:
        extra = check_columns(table, file.schema_arrow)
        rows = 0
        with pq.ParquetWriter(out / f"{table.name}.parquet", schema, compression="zstd") as writer:
            for batch in _batches(file, table, data / f"{table.name}.parquet"):
                columns = [batch.column(field.name).cast(field.type, safe=False) for field in schema]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                rows += batch.num_rows
        return {"rows_in": file.metadata.num_rows, "rows_out": rows, "columns_left_out": extra}


def _batches(file: Any, table: Table, path: Path) -> Iterator[Any]:
    """The file's rows. Pages are read here, so damage in the middle of a file is met here."""
    import pyarrow as pa

    try:
        yield from file.iter_batches(ROWS_A_GROUP, columns=list(table.names))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def arrow_schema(table: Table) -> Any:
    """The table's types in Arrow: text, float64, microseconds in UTC."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "float": pa.float64(), "timestamp": pa.timestamp("us", "UTC")}
    return pa.schema([pa.field(column.name, kinds[column.kind]) for column in table.columns])
