"""Which rows are bad or left out, and why: the schema's promises about single rows and keys, asked in one pass of DuckDB a table.

A row has at most one reason, the first that applies; of rows with one key the first good one stays. Some reasons are nobody's mistake
(`LEFT_OUT`): such rows are counted and set aside like the others, but do not make a bad table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.duck import quoted
from feature_repo.schema import CONTROL, EARLIEST, EVENTS, LATEST, POLICY_FLAGS, TABLES, USERS, Column, Table

if TYPE_CHECKING:
    import duckdb

AGAIN = "the same row again"
AHEAD = "timestamp: ahead of now"
NOBODY = "user_id: missing, of a session alone"
NO_CONSENT = "user_id: consents to minimal use"  # kept nowhere: not even the row set aside says whose it was
NOT_FOUND = {f"{column}: not in {other}" for table in TABLES.values() for column, other in table.references.items()}
LEFT_OUT = frozenset({AGAIN, NO_CONSENT, NOBODY, *NOT_FOUND})  # delivered twice, not consented to, of nobody known, withdrawn since


@dataclass(frozen=True)
class Verdict:
    """What became of one table's rows."""

    rows_in: int
    reasons: Mapping[str, int]  # rows set aside by reason, most first
    examples: Mapping[str, str]  # one row's key by reason

    @property
    def set_aside(self) -> int:
        return sum(self.reasons.values())

    @property
    def bad(self) -> int:
        """Rows set aside because something is wrong with them."""
        return sum(count for reason, count in self.reasons.items() if reason not in LEFT_OUT)

    @property
    def unknown(self) -> int:
        """Rows of a user or an item that its table does not hold."""
        return sum(count for reason, count in self.reasons.items() if reason in NOT_FOUND)

    @property
    def accepted(self) -> int:
        return self.rows_in - self.set_aside


def sort_out(
    connection: "duckdb.DuckDBPyConnection", table: Table, source: Path, accepted: Path, quarantine: Path, now: datetime | None = None
) -> Verdict:
    """Write the table's good rows to `accepted` and the others, with their `reason`, to `quarantine`.

    Good rows of referenced tables must already be there as views `good_<table>`; this table's view is made. `now`: no event is later;
    the clock's, if not given.
    """
    changed = _open_raw(connection, table, source)
    judged = _judged(table, now or datetime.now(UTC))
    connection.execute(f"CREATE OR REPLACE TABLE bad AS SELECT n, reason FROM ({judged}) WHERE reason IS NOT NULL")
    _add_repeated(connection, table)
    rows_in = _number(connection, "SELECT count(*) FROM raw")
    key = " || ', ' || ".join(f"coalesce({_name(column)}::VARCHAR, 'null')" for column in table.key)
    found = connection.execute(
        f"SELECT reason, count(*), min_by({key}, n) FROM bad JOIN raw ON n = file_row_number GROUP BY reason ORDER BY count(*) DESC, reason"
    ).fetchall()
    _write(connection, table, source, accepted, quarantine, as_it_is=not found and not changed)
    connection.execute(f"CREATE OR REPLACE VIEW good_{table.name} AS SELECT * FROM read_parquet({quoted(str(accepted))})")
    examples = {reason: "" if reason == NO_CONSENT else example for reason, _, example in found}
    return Verdict(rows_in, {reason: count for reason, count, _ in found}, examples)


def _open_raw(connection: "duckdb.DuckDBPyConnection", table: Table, source: Path) -> bool:
    """Make the view `raw` of the table's columns, what is not there or not a number being null; whether that differs from the file."""
    import pyarrow.parquet as pq

    held = pq.read_schema(source).names
    columns = [_as_missing(column, column.name in held) for column in table.columns]
    file = f"read_parquet({quoted(str(source))}, file_row_number = true)"
    connection.execute(f"CREATE OR REPLACE VIEW raw AS SELECT {', '.join(columns)}, file_row_number FROM {file}")
    if table.name == USERS.name:
        connection.execute("CREATE OR REPLACE TABLE unwilling AS SELECT DISTINCT user_id FROM raw WHERE consent = 'minimal'")
    numbers = [f"isnan({_name(column.name)}::DOUBLE)" for column in table.columns if column.kind == "float" and column.name in held]
    unknown = _number(connection, f"SELECT count(*) FROM {file} WHERE {' OR '.join(numbers)}") if numbers else 0
    unwilling = _number(connection, "SELECT count(*) FROM unwilling") if table.name == USERS.name else 0
    return bool(unknown or unwilling) or not set(table.names) <= set(held)


def _as_missing(column: Column, is_there: bool) -> str:
    """The column as it is read: null where it is absent or not a number."""
    name = _name(column.name)
    if not is_there:
        return f"CAST(NULL AS {_TYPES[column.kind]}) AS {name}"
    if column.kind == "float" and not column.required:
        return f"CASE WHEN NOT isnan({name}::DOUBLE) THEN {name} END AS {name}"
    return name


_TYPES = {"string": "VARCHAR", "float": "DOUBLE", "timestamp": "TIMESTAMPTZ"}


def _judged(table: Table, now: datetime) -> str:
    """A query of every row's number and reason; null where nothing is wrong."""
    checks = []
    if table.name == EVENTS.name:
        checks = [("user_id IN (SELECT user_id FROM unwilling)", NO_CONSENT), ("coalesce(user_id, '') = '' AND session_id <> ''", NOBODY)]
    checks += [check for column in table.columns for check in column_checks(column, refers=column.name in table.references)]
    if table.name == EVENTS.name:
        checks.append((f'"timestamp" > TIMESTAMPTZ {quoted(now.isoformat())}', AHEAD))
    checks += [
        (f"{_name(column)} NOT IN (SELECT {_name(TABLES[other].key[0])} FROM good_{other})", f"{column}: not in {other}")
        for column, other in table.references.items()
    ]
    checks += _extra_checks(table)
    cases = " ".join(f"WHEN {condition} THEN {quoted(reason)}" for condition, reason in checks)
    return f"SELECT file_row_number AS n, CASE {cases} END AS reason FROM raw"


def column_checks(column: Column, refers: bool) -> list[tuple[str, str]]:
    """(condition under which a row is bad, reason) of one column. A column that `refers` to another table is found in it or not."""
    name = _name(column.name)
    checks = [(f"{name} IS NULL", f"{column.name}: missing")] if column.required else []
    if column.required and column.kind == "string":
        checks.append((f"{name} = ''", f"{column.name}: empty"))
    if column.kind == "float":
        checks.append((f"NOT isfinite({name})", f"{column.name}: not a finite number"))
    if column.kind == "timestamp":
        inside = f"{name} >= TIMESTAMPTZ '{EARLIEST} 00:00:00+00' AND {name} < TIMESTAMPTZ '{LATEST} 00:00:00+00'"
        checks.append((f"NOT ({inside})", f"{column.name}: before {EARLIEST} or after {LATEST}"))
    if column.minimum is not None:
        checks.append((f"{name} < {column.minimum!r}", f"{column.name}: below {column.minimum:g}"))
    if column.maximum is not None:
        checks.append((f"{name} > {column.maximum!r}", f"{column.name}: above {column.maximum:g}"))
    if column.allowed is not None:
        checks.append((f"{name} NOT IN ({', '.join(map(quoted, column.allowed))})", f"{column.name}: not an allowed value"))
    return checks if refers else checks + _width_checks(column)


def _width_checks(column: Column) -> list[tuple[str, str]]:
    """What the server would refuse of a text as well."""
    name, checks = _name(column.name), []
    if column.longest is not None:
        checks.append((f"length({name}) > {column.longest}", f"{column.name}: longer than {column.longest} characters"))
    if column.plain:
        checks.append((f"regexp_matches({name}, {quoted(CONTROL)})", f"{column.name}: holds a control character"))
    return checks


def _extra_checks(table: Table) -> list[tuple[str, str]]:
    """What one column alone does not show."""
    if table.name == "context":
        return [("valid_until <= valid_from", "valid_until: not after valid_from")]
    if table.name == "items":
        flags = "list_transform(string_split(policy_flags, ','), lambda flag: trim(flag))"
        known = f"[{', '.join(map(quoted, ('', *POLICY_FLAGS)))}]"
        return [
            (f"policy_flags IS NOT NULL AND NOT list_has_all({known}, {flags})", "policy_flags: not of the known flags"),
            ("attributes IS NOT NULL AND NOT json_valid(attributes)", "attributes: not JSON"),
        ]
    return []


def _add_repeated(connection: "duckdb.DuckDBPyConnection", table: Table) -> None:
    """Add to `bad` the rows whose key an earlier good row has. Keys are first compared by hash, so that memory stays small."""
    key = ", ".join(_name(column) for column in table.key)
    repeated = f"repeated key: {', '.join(table.key)}"
    whole = f"hash({', '.join(_name(column) for column in table.names)})"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE twice AS SELECT hash({key}) AS h FROM raw GROUP BY h HAVING count(*) > 1")
    if not _number(connection, "SELECT count(*) FROM twice"):
        return
    connection.execute(
        f"""INSERT INTO bad SELECT n, CASE WHEN whole = first THEN {quoted(AGAIN)} ELSE {quoted(repeated)} END
        FROM (
            SELECT file_row_number AS n, row_number() OVER key AS nth, {whole} AS whole, first_value({whole}) OVER key AS first
            FROM raw WHERE hash({key}) IN (SELECT h FROM twice) AND file_row_number NOT IN (SELECT n FROM bad)
            WINDOW key AS (PARTITION BY {key} ORDER BY file_row_number)
        ) WHERE nth > 1"""
    )


def _write(connection: "duckdb.DuckDBPyConnection", table: Table, source: Path, accepted: Path, quarantine: Path, as_it_is: bool) -> None:
    import shutil

    options = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    told = ", ".join(f"CASE WHEN reason <> {quoted(NO_CONSENT)} THEN {_name(column)} END AS {_name(column)}" for column in table.names)
    aside = f"SELECT {told}, reason FROM raw JOIN bad ON n = file_row_number ORDER BY n"
    connection.execute(f"COPY ({aside}) TO {quoted(str(quarantine))} {options}")
    if as_it_is:
        shutil.copyfile(source, accepted)  # nothing to take out: the same bytes
        return
    columns = ", ".join(_consented(column) if table.name == USERS.name else _name(column.name) for column in table.columns)
    good = f"SELECT {columns} FROM raw ANTI JOIN bad ON n = file_row_number ORDER BY file_row_number"
    connection.execute(f"COPY ({good}) TO {quoted(str(accepted))} {options}")


def _consented(column: Column) -> str:
    """Of a user who consents to minimal use, who it is and that: nothing else may be learnt from."""
    name = _name(column.name)
    return name if column.name in ("user_id", "consent") else f"CASE WHEN consent <> 'minimal' THEN {name} END AS {name}"


def _number(connection: "duckdb.DuckDBPyConnection", query: str) -> int:
    ((number,),) = connection.execute(query).fetchall()  # all: a result left unfinished blocks the connection
    return int(number)


def _name(column: str) -> str:
    return f'"{column}"'
