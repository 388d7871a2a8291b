"""A table as its owner keeps it: one Parquet file, a folder of Parquet parts as Spark writes it, or CSV; read in the schema's types.

`events` may lie in `events.parquet` (a file or a folder), `events/` or `events.csv` (also `.csv.gz`). A column named only by a folder
(`event_type=click/part-0.parquet`) is read from the folder's name. Columns that may be empty may be absent.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from feature_repo.schema import Column, Table

ROWS_A_GROUP = 122_880
_NOTHING = "__HIVE_DEFAULT_PARTITION__"  # how Hive and Spark name a folder of missing values


class BadData(ValueError):
    """The given data are not the four tables. The message says which, why, and what to do."""


@dataclass(frozen=True)
class PartFile:
    """One file of a table, and the columns its folders' names give."""

    path: Path
    given: dict[str, str | None] = field(default_factory=dict)

    @property
    def is_csv(self) -> bool:
        return ".csv" in self.path.suffixes


def parts_of(table: Table, folder: Path) -> list[PartFile]:
    """The files that hold the table, in the order of their names; none where the table is absent. Raises `BadData` for two homes of one."""
    names = (f"{table.name}.parquet", table.name, f"{table.name}.csv", f"{table.name}.csv.gz")
    found = [folder / name for name in names if (folder / name).exists()]
    if len(found) > 1:
        raise BadData(f"the table {table.name} lies in both {found[0]} and {found[1].name}: leave the one that is to be read")
    if not found:
        return []
    if found[0].is_file():
        return [PartFile(found[0])]
    parts = [file for file in sorted(found[0].rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(found[0]))]
    readable = [file for file in parts if file.suffix == ".parquet" or ".csv" in file.suffixes]
    if not readable:
        raise BadData(f"the folder {found[0]} holds no part files: write *.parquet or *.csv into it")
    return [PartFile(file, _named_by_folders(file.relative_to(found[0]), table)) for file in readable]


def _is_hidden(path: Path) -> bool:
    """Whether Spark and Hive would pass it over: `_SUCCESS`, `.part-0.crc`, `_temporary/…`."""
    return any(name.startswith(("_", ".")) for name in path.parts)


def _named_by_folders(path: Path, table: Table) -> dict[str, str | None]:
    pairs = (name.partition("=") for name in path.parent.parts)
    return {name: None if value == _NOTHING else unquote(value) for name, split, value in pairs if split and name in table.names}


def read_part(table: Table, part: PartFile) -> tuple[list[str], list[str], Iterator[Any]]:
    """Columns of the part that the schema does not know, columns it lacks, and its rows as record batches in the schema's types.

    Raises `BadData` when it cannot be read or a column is missing or of another kind, also while rows are taken.
    """
    names, batches = _read_csv(table, part) if part.is_csv else _read_parquet(table, part)
    extra = sorted(set(names) - set(table.names))
    absent = [name for name in table.names if name not in names and name not in part.given]
    return extra, absent, _in_schema(table, part, batches)


def _read_parquet(table: Table, part: PartFile) -> tuple[list[str], Iterator[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(part.path, coerce_int96_timestamp_unit="us")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(part.path, error) from error
    utc = {column.name for column in (file.schema.column(n) for n in range(len(file.schema))) if column.physical_type == "INT96"}
    check_columns(table, file.schema_arrow, given=part.given, utc=utc)
    names = [name for name in file.schema_arrow.names if name in table.names]

    def batches() -> Iterator[Any]:
        with file:
            yield from file.iter_batches(ROWS_A_GROUP, columns=names)

    return file.schema_arrow.names, batches()


def _read_csv(table: Table, part: PartFile) -> tuple[list[str], Iterator[Any]]:
    """An empty cell means missing; ids stay as they are written (`00042`), times must carry their offset."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        with csv.open_csv(part.path) as head:
            names = head.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(part.path, error) from error
    schema = arrow_schema(table)
    check_columns(table, pa.schema([pa.field(name, pa.null()) for name in names]), given=part.given)
    wanted = [name for name in names if name in table.names]
    options = csv.ConvertOptions(
        column_types={name: schema.field(name).type for name in wanted},
        include_columns=wanted,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )

    def batches() -> Iterator[Any]:
        with csv.open_csv(part.path, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True)) as rows:
            yield from rows

    return names, batches()


def _in_schema(table: Table, part: PartFile, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches with the schema's columns, order and types. Pages are read here, so damage in the middle of a file is met here."""
    import pyarrow as pa

    schema = arrow_schema(table)
    try:
        for batch in batches:
            columns = [_column(batch, wanted, part) for wanted in schema]
            yield pa.Table.from_arrays(columns, schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(part.path, error) from error


def _column(batch: Any, wanted: Any, part: PartFile) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if wanted.name not in batch.schema.names:
        value = part.given.get(wanted.name)
        return pa.nulls(batch.num_rows, wanted.type) if value is None else pa.array([value] * batch.num_rows, pa.string()).cast(wanted.type)
    column = batch.column(wanted.name)
    if types.is_timestamp(wanted.type) and types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))  # INT96, which is UTC and cannot say so; `check_columns` let it pass
    return column.cast(wanted.type, safe=False)


def check_columns(table: Table, schema: Any, given: dict[str, str | None] | None = None, utc: set[str] | None = None) -> list[str]:
    """Names of columns the schema does not know. Raises `BadData` for a missing required column or one of another kind.

    `given`: columns known by another way than the file. `utc`: columns whose times are UTC although their type does not say so.
    """
    for column in table.columns:
        if column.name in schema.names:
            wrong = _mismatch(column, schema.field(column.name).type, column.name in (utc or ()))
            if wrong:
                raise BadData(f"the column {column.name!r} of the table {table.name} is {schema.field(column.name).type}, expected {wrong}")
        elif column.required and column.name not in (given or {}):
            near = difflib.get_close_matches(column.name, set(schema.names) - set(table.names), n=1)
            hint = f"rename {near[0]!r} to it" if near else "add it" + (f": {', '.join(column.allowed)}" if column.allowed else "")
            raise BadData(f"the table {table.name} lacks the column {column.name!r} ({column.meaning}): {hint}")
    return sorted(set(schema.names) - set(table.names))


def _mismatch(column: Column, found: Any, is_utc: bool) -> str:
    """What was expected instead of `found`, with the next step; empty when it fits."""
    from pyarrow import types

    if types.is_null(found):
        return ""
    if column.kind == "string":
        value = found.value_type if types.is_dictionary(found) else found
        fits = types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
        fits = fits or types.is_binary(value) or types.is_large_binary(value)  # how old writers store text; what is not UTF-8 is refused
        return "" if fits else "text (a Parquet string): cast it before writing"
    if column.kind == "float":
        fits = types.is_floating(found) or types.is_integer(found) or types.is_decimal(found)
        return "" if fits else "a number: cast it before writing"
    if not types.is_timestamp(found):
        return "a timestamp with a time zone: convert it before writing, for example with pandas.to_datetime(…, utc=True)"
    aware = found.tz or is_utc
    return "" if aware else "an aware timestamp: it is naive, without a time zone; localise it before writing, for example to UTC"


def _unreadable(path: Path, error: Exception) -> BadData:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if ".csv" in path.suffixes:
        return BadData(
            f"{path} cannot be read as CSV ({first}): write UTF-8 with a header and commas,"
            " and times with their offset like 2026-11-23T09:00:00Z"
        )
    return BadData(f"{path} is not a complete Parquet file ({first}): it may be cut short; write or copy it again")


def arrow_schema(table: Table) -> Any:
    """The table's types in Arrow: text, float64, microseconds in UTC."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "float": pa.float64(), "timestamp": pa.timestamp("us", "UTC")}
    return pa.schema([pa.field(column.name, kinds[column.kind]) for column in table.columns])
