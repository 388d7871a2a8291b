"""A table as Great Expectations can look at it in seconds: compact columns, or, beyond memory, exact counts of what would be wrong."""

from typing import TYPE_CHECKING

from components.data.duck import quoted
from feature_repo.schema import EVENTS, TABLES, Column, Table

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


def compact(connection: "duckdb.DuckDBPyConnection", table: Table) -> "pd.DataFrame":
    """The good rows of a table in compact columns, from the view `good_<table>`.

    Required texts are 64-bit hashes, texts of a small set categories, texts that may be missing only say whether they are there.
    `key` is the hash of the whole key, `<column> known` says whether a reference is met.
    """
    parts = [f'{_compact(column)} AS "{column.name}"' for column in table.columns]
    parts += [f'("{column}" IN {_keys(other)}) AS "{column} known"' for column, other in table.references.items()]
    parts.append(f"hash({', '.join(table.key)}) AS key")
    frame: pd.DataFrame = connection.sql(f"SELECT {', '.join(parts)} FROM good_{table.name}").df()
    return frame


def _compact(column: Column) -> str:
    if column.kind != "string":
        return f'"{column.name}"'
    if column.allowed is not None:
        return f'CAST("{column.name}" AS ENUM ({", ".join(map(quoted, column.allowed))}))'
    if column.required:
        return f'CASE WHEN "{column.name}" IS NOT NULL THEN hash("{column.name}") END'
    return f'("{column.name}" IS NOT NULL)'


def broken(connection: "duckdb.DuckDBPyConnection", table: Table) -> "pd.DataFrame":
    """One row for a table too large for a frame: how many of its good rows break each promise."""
    promises = {f"{column.name}: missing": f'"{column.name}" IS NULL' for column in table.columns if column.required}
    for column in table.columns:
        if column.minimum is not None:
            promises[f"{column.name}: below {column.minimum:g}"] = f'"{column.name}" < {column.minimum!r}'
        if column.maximum is not None:
            promises[f"{column.name}: above {column.maximum:g}"] = f'"{column.name}" > {column.maximum!r}'
        if column.allowed is not None:
            promises[f"{column.name}: not allowed"] = f'"{column.name}" NOT IN ({", ".join(map(quoted, column.allowed))})'
    promises |= {f"{column}: not in {other}": f'"{column}" NOT IN {_keys(other)}' for column, other in table.references.items()}
    counts = [f'count(*) FILTER ({condition}) AS "{name}"' for name, condition in promises.items()]
    frame: pd.DataFrame = connection.sql(f"SELECT {', '.join(counts)} FROM good_{table.name}").df()
    return frame


def _keys(other: str) -> str:
    return f'(SELECT "{TABLES[other].key[0]}" FROM good_{other})'


def newest_second(connection: "duckdb.DuckDBPyConnection", table: Table) -> float | None:
    """Seconds since 1970 of the newest row's first required time; None for a table without one."""
    column = next((column.name for column in table.columns if column.kind == "timestamp" and column.required), None)
    if column is None:
        return None
    ((newest,),) = connection.execute(f'SELECT epoch_us(max("{column}")) / 1e6 FROM good_{table.name}').fetchall()
    return None if newest is None else float(newest)


def values_of(connection: "duckdb.DuckDBPyConnection", table: Table) -> dict[str, int]:
    """How many different values each column holds that may hold only so many."""
    columns = [column.name for column in table.columns if column.most_values is not None]
    if not columns:
        return {}
    counts = ", ".join(f'count(DISTINCT "{column}")' for column in columns)
    (found,) = connection.execute(f"SELECT {counts} FROM good_{table.name}").fetchall()
    return dict(zip(columns, map(int, found), strict=True))


def types_given(connection: "duckdb.DuckDBPyConnection", table: Table) -> dict[str, int]:
    """Rows by event type, the twenty most frequent; of the view `raw`, so of the table looked at last. Empty for other tables."""
    if table.name != EVENTS.name:
        return {}
    query = "SELECT event_type, count(*) AS n FROM raw WHERE event_type <> '' GROUP BY ALL ORDER BY n DESC, event_type LIMIT 20"
    return dict(connection.execute(query).fetchall())
