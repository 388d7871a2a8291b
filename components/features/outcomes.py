"""What came of an item for each of a system's heads, in the days after a cut, and where it was shown: what the rankers learn from."""

from collections.abc import Mapping
from pathlib import Path

from components.data.duck import quoted
from components.features.tables import Tables
from feature_repo.schema import SECONDS_A_DAY
from serving.objectives import POSITIVE, LabelEvent, Objective


def write_outcomes(
    tables: Tables, objectives: Mapping[str, Objective], day: float, horizon_days: int, path: Path, rows: str = "outcomes"
) -> int:
    """`user_id, item_id` and a column a head: 0, or 1 where it came about; of a weighted head the value over the usual one, summed.

    Of `rows`: only of users who consent to be learnt from. How many pairs have anything.
    """
    columns = ", ".join(f"{_column(one)} AS {name_of(name)}" for name, one in objectives.items())
    begin, end = (f"to_timestamp({moment * SECONDS_A_DAY!r})" for moment in (day, day + horizon_days))
    anything = " OR ".join(f"{name_of(name)} > 0" for name in objectives)
    target = quoted(str(path))
    tables.backend.raw_sql(
        f"""COPY (SELECT * FROM (SELECT user_id, item_id, {columns} FROM {rows} WHERE "timestamp" >= {begin} AND "timestamp" < {end}
        GROUP BY user_id, item_id) WHERE {anything} ORDER BY user_id, item_id) TO {target} (FORMAT parquet, COMPRESSION zstd)"""
    )
    return int(tables.arrow(f"SELECT count(*) AS n FROM {target}")["n"][0].as_py())


def write_shown(tables: Tables, day: float, horizon_days: int, path: Path, rows: str = "shown") -> int:
    """`user_id, item_id, position` (the best one; null where none was said) of what was shown in those days. How many pairs."""
    begin, end = (f"to_timestamp({moment * SECONDS_A_DAY!r})" for moment in (day, day + horizon_days))
    target = quoted(str(path))
    tables.backend.raw_sql(
        f"""COPY (SELECT user_id, item_id, min(context_position) AS position FROM {rows}
        WHERE "timestamp" >= {begin} AND "timestamp" < {end}
        GROUP BY user_id, item_id ORDER BY user_id, item_id) TO {target} (FORMAT parquet, COMPRESSION zstd)"""
    )
    return int(tables.arrow(f"SELECT count(*) AS n FROM {target}")["n"][0].as_py())


def name_of(head: str) -> str:
    """The head as the name of a column."""
    return '"' + head.replace('"', '""') + '"'


def _column(one: Objective) -> str:
    """A head's outcome of the events of one user and item."""
    counts = " OR ".join(map(_meets, one.counted))
    if one.loss == "log-loss":
        return f"max(CASE WHEN {counts} THEN 1.0 ELSE 0.0 END)"
    value = f"coalesce(value / {one.usual!r}, 1.0)"  # an event that says no value counts as a usual one
    if any(counted.kind == POSITIVE for counted in one.counted):
        value = f"CASE WHEN worth > 0 THEN worth ELSE {value} END"
    return f"coalesce(sum(CASE WHEN {counts} THEN {value} END), 0.0)"


def _meets(counted: LabelEvent) -> str:
    kind = "worth > 0" if counted.kind == POSITIVE else f"event_type = {quoted(counted.kind)}"
    return f"({kind})" if counted.at_least is None else f"({kind} AND value >= {counted.at_least!r})"
