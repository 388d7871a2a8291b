"""From accepted tables to what was known at each weekly cut: features by Feast, item tables, user states, labels."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from components.cut import LABELS, OUTCOMES, SHOWN, USERS
from components.features import asked
from components.features.item_table import ItemBase, build_item_table, open_shelf
from components.features.moments import JUDGED_WEEKS, cut_day, cut_name, judged_days, later_cuts, most_cuts, parse_moment, rolling_cuts
from components.features.outcomes import write_outcomes, write_shown
from components.features.own_views import copy
from components.features.snapshots import write_snapshots
from components.features.states import build_states, user_ids
from components.features.store import KEYS, apply, definitions, feature_names, features_at, online_layout
from components.features.tables import Tables, open_tables
from serving.system import Learning, System

JUDGED = "judged"  # folder of the later weeks a bundle is judged on; read by nobody but evaluation


def build(system: System, tables: Path, out: Path, until: str | datetime, cuts: int, engine: str = "duckdb") -> None:
    """Write what was known at `until` and at `cuts` weekly cuts before it, as the design's section 9 says; and under `judged/` what was
    known a target's length later, where the rows reach on for another: a second week to judge by.

    A week in which nobody chose anything teaches nothing: its cut is left out, named in `features.json`, and an earlier one taken instead.

    `tables`: the accepted four tables. `engine`: who computes the snapshots, `duckdb` or `spark`; the rest is DuckDB's either way.
    Raises `ValueError` when nothing lies before `until`.
    """
    moment = parse_moment(until)
    learning = system.learning
    out.mkdir(parents=True, exist_ok=True)
    with open_tables(tables, system, cut_day(moment), JUDGED_WEEKS * learning.horizon_days) as opened:
        if cut_day(moment) <= opened.first_day:
            raise ValueError(f"no {' or '.join(learning.positives)} event lies before {moment.isoformat()}: choose a later moment")
        moments, quiet = _telling_cuts(opened, moment, cuts, learning)
        later = later_cuts(moment, learning.horizon_days, opened.last_day)
        days = judged_days(moment, learning.horizon_days, opened.last_day)
        found, every = definitions(system), [*moments, *later]
        rows = write_snapshots(opened, tables, system, found.computed, every, out, engine)
        rows |= {view.name: copy(view, out, every[-1]) for view in found.own}
        store = apply(system, out, moment)
        names = {service: feature_names(store, service) for service in KEYS}
        shelf = open_shelf(opened, names["items"])
        made, judged = (
            [_build_cut(system, opened, store, shelf, names["users"], cut, out / place / cut_name(cut)) for cut in chosen]
            for place, chosen in (("cuts", moments), (JUDGED, later))
        )
    report = {
        "until": moment.isoformat(),
        "engine": engine,
        "rows": {"positives": opened.positives, **rows},
        "cuts_asked": cuts,
        "quiet_weeks": [cut_name(cut) for cut in quiet],
        "cuts": made,
        "judged": judged,
        "judged_days": days,
        "user_features": list(names["users"]),
        "item_features": list(names["items"]),
        "online": online_layout(store),
    }
    (out / "features.json").write_text(json.dumps(report, indent=1) + "\n")
    if quiet:
        print(f"Nothing was chosen in the weeks after {', '.join(map(cut_name, quiet))}: their cuts are left out.", flush=True)


def _telling_cuts(tables: Tables, until: datetime, count: int, learning: Learning) -> tuple[list[datetime], list[datetime]]:
    """The newest `count` cuts with something to learn in the days after, ascending, and `until`; and the quiet ones passed over."""
    most = max(count, most_cuts(tables.first_day, cut_day(until), learning))
    found: list[datetime] = []
    quiet: list[datetime] = []
    for cut in reversed(rolling_cuts(until, most, learning)[:-1]):
        if len(found) == count or cut_day(cut) <= tables.first_day:
            break
        (found if tables.chosen(cut_day(cut), learning.horizon_days) else quiet).append(cut)
    oldest = found[-1] if found else until
    return [*reversed(found), until], [cut for cut in reversed(quiet) if cut > oldest or not found]


def _build_cut(
    system: System, tables: Tables, store: Any, shelf: ItemBase, user_features: tuple[str, ...], cut: datetime, out: Path
) -> dict[str, Any]:  # fmt: skip
    """One cut's folder; its entry in the report."""
    out.mkdir(parents=True, exist_ok=True)
    day, horizon_days = cut_day(cut), system.learning.horizon_days
    items = features_at(store, "items", [item.decode() for item in tables.item_ids.tolist()], cut, shelf.catalogue.feature_names)
    users = features_at(store, "users", user_ids(tables), cut, user_features)
    states = build_states(tables, day, users, user_features)
    states.save(out / USERS)
    build_item_table(tables, shelf, day, horizon_days, items).save(out / "item_table")
    counts = {"users": len(states), "histories": len(states.keys), "items": len(shelf.catalogue)}
    if system.learning.asked == "amid sessions":
        return {"cut": cut_name(cut), **counts, **_amid_sessions(system, tables, store, user_features, cut, out)}
    labels = write_labels(tables, day, horizon_days, out / LABELS)
    write_outcomes(tables, system.objectives, day, horizon_days, out / OUTCOMES)
    shown = write_shown(tables, day, horizon_days, out / SHOWN)
    return {"cut": cut_name(cut), **counts, "labels": labels, "shown": shown}


def _amid_sessions(system: System, tables: Tables, store: Any, user_features: tuple[str, ...], cut: datetime, out: Path) -> dict[str, Any]:
    """Who is asked after the cut, amid their sessions, and what came of it there; counts for the report."""
    day, days = cut_day(cut), system.learning.horizon_days
    asked.draw(tables, day, days)
    features = features_at(store, "users", asked.names(tables), cut, user_features)
    told = asked.write_states(tables, day, features, user_features, out)
    labels = _written(tables, "SELECT user_id, item_id, 1 AS count FROM asked ORDER BY user_id", out / LABELS)
    write_outcomes(tables, system.objectives, day, days, out / OUTCOMES, asked.since("outcomes"))
    shown = write_shown(tables, day, days, out / SHOWN, asked.since("shown"))
    return {"asked": told, "labels": labels, "shown": shown}


def write_labels(tables: Tables, day: float, horizon_days: int, path: Path) -> int:
    """`user_id, item_id, count` of positives in the days after the cut; how many pairs."""
    begin, end = (f"to_timestamp({moment * 86400.0!r})" for moment in (day, day + horizon_days))
    chosen = f"""SELECT user_id, item_id, count(*) AS count FROM personal WHERE "timestamp" >= {begin} AND "timestamp" < {end}
        GROUP BY ALL ORDER BY ALL"""
    return _written(tables, chosen, path)


def _written(tables: Tables, query: str, path: Path) -> int:
    """Write the query's rows; how many."""
    target = str(path).replace("'", "''")
    tables.backend.raw_sql(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    return int(tables.arrow(f"SELECT count(*) AS n FROM '{target}'")["n"][0].as_py())
