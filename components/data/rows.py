"""Which rows are bad, and why: the schema's promises about single rows and keys, asked in one pass of DuckDB a table.

A row has at most one reason, the first that applies; of rows with one key the first good one stays.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.schema import CONTROL, EARLIEST, LATEST, POLICY_FLAGS, TABLES, Column, Table

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Verdict:
    """What became of one table's rows."""

    rows_in: int
    set_aside: int
    reasons: dict[str, int]  # rows by reason, most first
    examples: dict[str, str]  # one row's key by reason

    @property
    def accepted(self) -> int:
        return self.rows_in - self.set_aside


def sort_out(connection: "duckdb.DuckDBPyConnection", table: Table, source: Path, accepted: Path, quarantine: Path) -> Verdict:
    """Write the table's good rows to `accepted` and the others, with their `reason`, to `quarantine`.

    Good rows of referenced tables must already be there as views `good_<table>`; this table's view is made.
    """
    connection.execute(f"CREATE OR REPLACE VIEW raw AS SELECT * FROM read_parquet({_text(str(source))}, file_row_number = true)")
    connection.execute(f"CREATE OR REPLACE TABLE bad AS SELECT n, reason FROM ({_judged(table)}) WHERE reason IS NOT NULL")
    _add_repeated(connection, table)
    rows_in = _number(connection, "SELECT count(*) FROM raw")
    key = " || ', ' || ".join(f"coalesce({_name(column)}::VARCHAR, 'null')" for column in table.key)
    found = connection.execute(
        f"SELECT reason, count(*), min_by({key}, n) FROM bad JOIN raw ON n = file_row_number GROUP BY reason ORDER BY count(*) DESC, reason"
    ).fetchall()
    _write(connection, table, source, accepted, quarantine, any_bad=bool(found))
    connection.execute(f"CREATE OR REPLACE VIEW good_{table.name} AS SELECT * FROM read_parquet({_text(str(accepted))})")
    reasons = {reason: count for reason, count, _ in found}
    return Verdict(rows_in, sum(reasons.values()), reasons, {reason: example for reason, _, example in found})


def _judged(table: Table) -> str:
    """A query of every row's number and reason; null where nothing is wrong."""
    checks = [check for column in table.columns for check in column_checks(column, refers=column.name in table.references)]
    checks += [
        (f"{_name(column)} NOT IN (SELECT {_name(TABLES[other].key[0])} FROM good_{other})", f"{column}: not in {other}")
        for column, other in table.references.items()
    ]
    checks += _extra_checks(table)
    cases = " ".join(f"WHEN {condition} THEN {_text(reason)}" for condition, reason in checks)
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
        checks.append((f"{name} NOT IN ({', '.join(map(_text, column.allowed))})", f"{column.name}: not an allowed value"))
    return checks if refers else checks + _width_checks(column)


def _width_checks(column: Column) -> list[tuple[str, str]]:
    """What the server would refuse of a text as well."""
    name, checks = _name(column.name), []
    if column.longest is not None:
        checks.append((f"length({name}) > {column.longest}", f"{column.name}: longer than {column.longest} characters"))
    if column.plain:
        checks.append((f"regexp_matches({name}, {_text(CONTROL)})", f"{column.name}: holds a control character"))
    return checks


def _extra_checks(table: Table) -> list[tuple[str, str]]:
    """What one column alone does not show."""
    if table.name == "context":
        return [("valid_until <= valid_from", "valid_until: not after valid_from")]
    if table.name == "items":
        flags = "list_transform(string_split(policy_flags, ','), lambda flag: trim(flag))"
        known = f"[{', '.join(map(_text, ('', *POLICY_FLAGS)))}]"
        return [
            (f"policy_flags IS NOT NULL AND NOT list_has_all({known}, {flags})", "policy_flags: not of the known flags"),
            ("attributes IS NOT NULL AND NOT json_valid(attributes)", "attributes: not JSON"),
        ]
    return []


def _add_repeated(connection: "duckdb.DuckDBPyConnection", table: Table) -> None:
    """Add to `bad` the rows whose key an earlier good row has. Keys are first compared by hash, so that memory stays small."""
    key = ", ".join(_name(column) for column in table.key)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE twice AS SELECT hash({key}) AS h FROM raw GROUP BY h HAVING count(*) > 1")
    if not _number(connection, "SELECT count(*) FROM twice"):
        return
    connection.execute(
        f"""INSERT INTO bad SELECT n, {_text("repeated key: " + ", ".join(table.key))} FROM (
            SELECT file_row_number AS n, row_number() OVER (PARTITION BY {key} ORDER BY file_row_number) AS nth
            FROM raw WHERE hash({key}) IN (SELECT h FROM twice) AND file_row_number NOT IN (SELECT n FROM bad)
        ) WHERE nth > 1"""
    )


def _write(connection: "duckdb.DuckDBPyConnection", table: Table, source: Path, accepted: Path, quarantine: Path, any_bad: bool) -> None:
    import shutil

    options = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
    columns = ", ".join(map(_name, table.names))
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    aside = f"SELECT {columns}, reason FROM raw JOIN bad ON n = file_row_number ORDER BY n"
    connection.execute(f"COPY ({aside}) TO {_text(str(quarantine))} {options}")
    if any_bad:
        good = f"SELECT {columns} FROM raw ANTI JOIN bad ON n = file_row_number ORDER BY file_row_number"
        connection.execute(f"COPY ({good}) TO {_text(str(accepted))} {options}")
    else:
        shutil.copyfile(source, accepted)  # nothing to take out: the same bytes


def _number(connection: "duckdb.DuckDBPyConnection", query: str) -> int:
    ((number,),) = connection.execute(query).fetchall()  # all: a result left unfinished blocks the connection
    return int(number)


def _name(column: str) -> str:
    return f'"{column}"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
