"""The snapshots Feast reads: a row an entity and cut of every view a system computes from its tables, by DuckDB or by Spark."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from components.features.tables import Tables
from feature_repo.schema import TABLES
from serving.event_meanings import worths_of
from serving.system import System

ENGINES = ("duckdb", "spark")
SPARK = {"spark.ui.enabled": "false", "spark.sql.session.timeZone": "UTC"}


def write_snapshots(
    tables: Tables, folder: Path, system: System, views: Sequence[Any], cuts: list[datetime], out: Path, engine: str
) -> dict[str, int]:  # fmt: skip
    """Write `<view>.parquet` under `out` for each of `views` (`feature_repo.views.Computed`), ascending by cut and id; how many rows each.

    `folder` holds the accepted tables, for the engine that reads them itself. What is said of a user is made of what users consent to.
    """
    from feature_repo.expressions import stats

    rows = {}
    with _sources(tables, folder, system, engine) as (history, events, items, context):
        for one in views:
            key, whose = one.key, int(one.key == "user_id")
            frames = (stats(one.features, key, history[whose], events[whose], items, context, cut) for cut in cuts)
            names = tuple(feature.name for feature in one.features)
            rows[one.view.name] = _write(frames, key, names, cuts, out / f"{one.view.name}.parquet")
    return rows


def _write(frames: Iterator[Any], key: str, names: tuple[str, ...], cuts: list[datetime], path: Path) -> int:
    """One row group a cut, so that a reader of one cut skips the others."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    types = [pa.field("event_timestamp", pa.timestamp("us", "UTC")), pa.field(key, pa.string())]
    schema = pa.schema(types + [pa.field(name, pa.float32()) for name in names])
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for cut, frame in zip(cuts, frames, strict=True):
            found = frame.to_pyarrow()
            found = found.take(pc.sort_indices(found[key]))
            when = pa.array([cut], schema.field("event_timestamp").type).take(pa.nulls(found.num_rows, pa.int8()).fill_null(0))
            columns = [when, found[key].cast(pa.string()), *(pc.cast(found[name], pa.float32(), safe=False) for name in names)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(1, found.num_rows))
            rows += found.num_rows
    return rows


@contextmanager
def _sources(tables: Tables, folder: Path, system: System, engine: str) -> Iterator[tuple[Any, Any, Any, Any]]:
    """History and what of it is personal, events likewise, items and context as Ibis tables of the engine."""
    if engine == "duckdb":
        yield (tables.history, tables.personal), (tables.events, tables.personal_events), tables.items, tables.context
    elif engine == "spark":
        with spark_tables(folder) as named:
            from feature_repo.expressions import history

            past = history(named["events"], named["items"], named["context"], worths_of(system.learning.meanings)).cache()
            consenting, events = named["users"].filter(named["users"].consent == "full"), named["events"]
            of_all_and_own = [(rows, rows.semi_join(consenting, "user_id")) for rows in (past, events)]
            yield *of_all_and_own, named["items"], named["context"]
    else:
        raise ValueError(f"no engine {engine!r}: known are {', '.join(ENGINES)}")


@contextmanager
def spark_tables(folder: Path, **settings: str) -> Iterator[dict[str, Any]]:
    """The four tables of a folder as Ibis tables of a Spark session, stopped at the end.

    A session that is there already (a cluster's) is used; else a local one is made. `settings`: of Spark, dots as underscores.
    """
    import ibis
    from pyspark.sql import SparkSession

    given = {name.replace("_", "."): value for name, value in settings.items()}
    session = SparkSession.builder.appName("features").config(map={**SPARK, **given}).getOrCreate()
    try:
        backend = ibis.pyspark.connect(session)
        yield {name: backend.read_parquet(str(folder / f"{name}.parquet"), table_name=name) for name in TABLES}
    finally:
        session.stop()
