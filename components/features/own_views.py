"""What is known elsewhere: the views a system's Feast repo has besides the computed ones, copied as one run reads them.

The copy is what makes a run repeatable, and it mends what Parquet files of others bring: ids that are numbers, nanoseconds (which Feast on
DuckDB refuses), renamed columns, rows written after the moment they speak of. A row is known from the later of its two times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from components.data.duck import connect, quoted
from components.step import digest_of

FOLDER = "own"  # of the copies, in a run


class BadView(ValueError):
    """A view's source cannot be read as its definition says; the message names the view and what to correct."""


@dataclass(frozen=True)
class OwnView:
    """Where one view's rows come from."""

    name: str
    path: Path
    key: str  # its join key
    timestamp: str
    created: str  # empty: rows are known from their timestamp on
    columns: dict[str, str]  # feature -> column of the source


def redirected(view: Any, entities: Mapping[str, Any], repo: Path) -> OwnView:
    """Have the Feast view read this run's copy; what to copy. Raises `BadView` where it does not read Parquet files.

    `entities`: those of its repo, by name.
    """
    from feast import Field, FileSource
    from feast.types import String

    if not view.entity_columns:  # Feast would look into the source for their types
        view.entity_columns = [Field(name=entities[name].join_key, dtype=String) for name in view.entities if name in entities]
    source, keys = view.batch_source, [column.name for column in view.entity_columns]
    if not isinstance(source, FileSource):
        raise BadView(f"the view {view.name} reads a {type(source).__name__}: give it a FileSource of Parquet files")
    if len(keys) != 1:
        raise BadView(f"the view {view.name} is about {', '.join(keys) or 'nothing'}: a view is about one entity, user or item")
    back = {ours: theirs for theirs, ours in source.field_mapping.items()}
    names = [field.name for field in view.features]
    own = OwnView(
        view.name, repo / source.path, keys[0], source.timestamp_field, source.created_timestamp_column or "",
        {name: back.get(name, name) for name in names},
    )  # fmt: skip
    view.batch_source = FileSource(
        name=source.name, path=f"{FOLDER}/{view.name}.parquet", timestamp_field="event_timestamp", description=source.description
    )
    return own


def version(views: tuple[OwnView, ...]) -> str:
    """What the views' files hold now; empty without any. Raises `BadView` when one is not there."""
    return " ".join(f"{view.name} {digest_of(_there(view))}" for view in views)


def copy(view: OwnView, out: Path, until: datetime) -> int:
    """Write the rows known at `until` to `out/own/<view>.parquet`, ascending by time and id; how many. Raises `BadView`."""
    target = out / FOLDER / f"{view.name}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    path = _there(view)
    files = quoted(str(path / "**" / "*.parquet") if path.is_dir() else str(path))
    connection = connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        _check_columns(connection, view, files)
        connection.execute(f"CREATE TABLE given AS {_read(view, files)}")
        _check_rows(connection, view)
        names = ", ".join(map(_name, view.columns))
        moment = f"TIMESTAMPTZ {quoted(until.isoformat())}"
        connection.execute(
            f"""COPY (SELECT known AS event_timestamp, {_name(view.key)}, {names}
            FROM (SELECT *, max(said) OVER (PARTITION BY {_name(view.key)} ORDER BY known, said ROWS UNBOUNDED PRECEDING) AS newest
                FROM given)
            WHERE known <= {moment} AND said = newest
            QUALIFY row_number() OVER (PARTITION BY {_name(view.key)}, known ORDER BY said DESC, written DESC) = 1
            ORDER BY event_timestamp, {_name(view.key)}) TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)"""
        )
        return int(connection.execute(f"SELECT count(*) FROM read_parquet({quoted(str(target))})").fetchall()[0][0])
    finally:
        connection.close()


def _there(view: OwnView) -> Path:
    if not view.path.exists():
        raise BadView(f"the view {view.name} reads {view.path}, which is not there: correct the path of its FileSource, or write the file")
    return view.path


def _check_columns(connection: Any, view: OwnView, files: str) -> None:
    there = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM read_parquet({files})").fetchall()]
    asked = (view.key, view.timestamp, *filter(None, [view.created]), *view.columns.values())
    for name in asked:
        if name not in there:
            raise BadView(f"the view {view.name} reads a column {name!r} that {view.path} does not have: it has {', '.join(there)}")


def _read(view: OwnView, files: str) -> str:
    """The rows with an id and a time: said, when they are of; written; known, the later of both."""
    said = f"CAST({_name(view.timestamp)} AS TIMESTAMPTZ)"
    written = f"CAST({_name(view.created)} AS TIMESTAMPTZ)" if view.created else said
    columns = ", ".join(f"{_name(theirs)} AS {_name(ours)}" for ours, theirs in view.columns.items())
    return f"""SELECT DISTINCT CAST({_name(view.key)} AS VARCHAR) AS {_name(view.key)}, {said} AS said, {written} AS written,
        greatest({said}, {written}) AS known, {columns}
        FROM read_parquet({files}) WHERE {_name(view.key)} IS NOT NULL AND {_name(view.timestamp)} IS NOT NULL"""


def _check_rows(connection: Any, view: OwnView) -> None:
    """Refuse two answers to one question, and numbers that are none."""
    twice = connection.execute(
        f"SELECT {_name(view.key)}, said FROM given GROUP BY {_name(view.key)}, said, written HAVING count(*) > 1 LIMIT 1"
    )
    for key, said in twice.fetchall():
        raise BadView(f"the view {view.name} has two different rows of {key!r} at {said}: keep one of them")
    for name in view.columns:
        kind = connection.execute(f"SELECT typeof({_name(name)}) FROM given LIMIT 1").fetchall()
        if kind and kind[0][0] in ("FLOAT", "DOUBLE"):
            bad = connection.execute(f"SELECT {_name(view.key)} FROM given WHERE isinf({_name(name)}) LIMIT 1").fetchall()
            if bad:
                raise BadView(f"the feature {name} of the view {view.name} is infinite for {bad[0][0]!r}: correct it, or leave it empty")


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
