"""From accepted tables to what was known at each weekly cut: features by Feast, item tables, user states, labels."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.features.cuts import cut_day, cut_name, parse_moment, weekly_cuts
from components.features.item_table import Shelf, build_item_table, open_shelf
from components.features.states import build_states, user_ids
from components.features.tables import Tables, open_tables
from feature_repo.names import ITEM_FEATURES, USER_FEATURES
from serving.system import System


def build(system: System, tables: Path, out: Path, until: str | datetime, cuts: int, engine: str = "duckdb") -> None:
    """Write `out` as the design's section 9 says."""
    moment = parse_moment(until)
    learning = system.learning
    with open_tables(tables, learning.positives, cut_day(moment), learning.horizon_days) as opened:
        shelf = open_shelf(opened, ITEM_FEATURES)
        made = []
        for cut in weekly_cuts(moment, cuts, learning.horizon_days):
            made.append(_build_cut(opened, shelf, cut, learning.horizon_days, out / "cuts" / cut_name(cut)))
    (out / "features.json").write_text(json.dumps({"cuts": made}, indent=1) + "\n")


def _build_cut(tables: Tables, shelf: Shelf, cut: datetime, horizon_days: int, out: Path) -> dict[str, object]:
    from feature_repo.expressions import item_stats, user_stats

    out.mkdir(parents=True, exist_ok=True)
    day = cut_day(cut)
    users = _frame(user_stats(tables.history, cut).to_pyarrow(), "user_id", user_ids(tables), USER_FEATURES)
    items = _frame(
        item_stats(tables.history, tables.items, tables.context, cut).to_pyarrow(),
        "item_id",
        [i.decode() for i in tables.item_ids.tolist()],
        ITEM_FEATURES,
    )
    build_states(tables, day, users, USER_FEATURES).save(out / "users")
    build_item_table(tables, shelf, day, horizon_days, items).save(out / "item_table")
    labels = write_labels(tables, day, horizon_days, out / "labels.parquet")
    return {"cut": cut_name(cut), "labels": labels}


def _frame(table, key: str, ids: list[str], names: tuple[str, ...]) -> NDArray[np.float32]:
    frame = table.to_pandas().set_index(key).reindex(ids)
    return np.ascontiguousarray(frame[list(names)].to_numpy(np.float32))


def write_labels(tables: Tables, day: float, horizon_days: int, path: Path) -> int:
    """`user_id, item_id, count` of positives in the days after the cut; how many pairs."""
    begin, end = (f"to_timestamp({moment * 86400.0!r})" for moment in (day, day + horizon_days))
    target = str(path).replace("'", "''")
    tables.backend.raw_sql(
        f"""COPY (SELECT user_id, item_id, count(*) AS count FROM history WHERE "timestamp" >= {begin} AND "timestamp" < {end}
        GROUP BY ALL ORDER BY ALL) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"""
    )
    return int(tables.arrow(f"SELECT count(*) AS n FROM '{target}'")["n"][0].as_py())
