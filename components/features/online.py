"""What is known of users now, into Feast's online store: SQLite's file on one machine, Redis for many. Servers read it from there.

A run of its own: rows of the computed views as of one moment, what is known elsewhere up to it, then Feast's own `materialize`.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.features.moments import cut_day, cut_name, parse_moment
from components.features.own_views import copy
from components.features.snapshots import write_snapshots
from components.features.store import KEYS, apply, definitions, feature_names, open_store
from components.features.tables import open_tables
from serving.state.user_state import StateTable
from serving.system import System

_EVER = timedelta(days=36_500)  # rows of a view without ttl count however old


def materialize(system: System, tables: Path, out: Path, until: str, online: str) -> dict[str, Any]:
    """Fill the store `online` (`sqlite:PATH` or `redis://HOST:PORT/DB`) with users' rows as of `until`; what was done, in `online.json`.

    `tables`: the accepted four. SQLite's file is made beside the old one and takes its place: it is never read while it is written. A file
    that holds a later moment is left as it is; in Redis Feast keeps the later row.
    """
    moment = parse_moment(until)
    scheme, _, place = online.partition(":")
    target = Path(place) if scheme == "sqlite" else None
    newer = target is not None and _moment_of(target) > moment
    report: dict[str, Any] = {"until": moment.isoformat(), "written": not newer, "views": []}
    out.mkdir(parents=True, exist_ok=True)
    if not newer:
        fresh = None if target is None else target.with_name(f".{target.name}.{os.getpid()}")
        store = _applied(system, tables, out, moment, fresh, online)
        report["views"] = _materialize(store, moment)
        if target is not None and fresh is not None:
            _put(fresh, target, moment)
    (out / "online.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _applied(system: System, tables: Path, out: Path, moment: datetime, file: Path | None, online: str) -> Any:
    """The open Feast store over `out`, which holds the rows of the users' views as of the moment; its online store made empty or named."""
    found = definitions(system)
    with open_tables(tables, system, cut_day(moment), 0) as opened:
        views = [view for view in found.computed if view.key == KEYS["users"]]
        write_snapshots(opened, tables, system, views, [moment], out, "duckdb")
    for view in found.own:
        if view.key == KEYS["users"]:
            copy(view, out, moment)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
    return apply(system, out, moment, file.resolve() if file is not None else online)


def _materialize(store: Any, moment: datetime) -> list[str]:
    """Feast's own, of every view in the service `users`, each from as far back as its rows count."""
    names = [view.name for view in store.get_feature_service("users").feature_view_projections]
    for name in names:
        ttl = store.get_feature_view(name).ttl or _EVER
        store.materialize(moment - ttl, moment + timedelta(microseconds=1), feature_views=[name])
    return names


def _moment_of(file: Path) -> datetime:
    """The moment whose rows the file holds; long ago when there is none."""
    beside = file.with_suffix(".json")
    told = json.loads(beside.read_text())["until"] if file.is_file() and beside.is_file() else "1970-01-01"
    return datetime.fromisoformat(told).replace(tzinfo=UTC)


def _put(fresh: Path, target: Path, moment: datetime) -> None:
    fresh.replace(target)
    target.with_suffix(".json").write_text(json.dumps({"until": moment.isoformat()}) + "\n")


def online_features(system: System, run: Path, online: str, user_id: str) -> dict[str, float | None]:
    """One user's row as Feast reads it of the store `online`, by name; None where it knows nothing. `run`: of `materialize`."""
    store = open_store(system, run, Path(online.removeprefix("sqlite:")).resolve() if online.startswith("sqlite:") else online)
    answer = store.get_online_features(features=store.get_feature_service("users"), entity_rows=[{"user_id": user_id}]).to_dict()
    return {name: answer[name][0] for name in feature_names(store, "users")}


def last_states(features: Path, until: str) -> StateTable:
    """The states at the last cut of a `build` output."""
    return StateTable.load(features / "cuts" / cut_name(parse_moment(until)) / "users")
