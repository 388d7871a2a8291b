"""DuckDB as every step here opens it: times in UTC, memory bounded, spill files where temporary files go."""

import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def settings(memory: str = "3GB") -> str:
    """The statements to run on a fresh connection. Without the last, DuckDB spills into the working folder, which may be read-only."""
    spill = f"{tempfile.gettempdir()}/duckdb_spill".replace("'", "''")
    return f"SET TimeZone = 'UTC'; SET memory_limit = '{memory}'; SET temp_directory = '{spill}'"


def connect(memory: str = "3GB") -> "duckdb.DuckDBPyConnection":
    """A fresh in-memory database."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(settings(memory)).fetchall()
    return connection


def quoted(text: str) -> str:
    """The text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
