"""The last cut into the online store: Feast's SQLite file for anyone who reads by Feast, packed states for the server.

The server reads one packed value a user and never imports Feast (seconds and hundreds of MB); a test holds both to the same features.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from components.features.moments import cut_name, parse_moment
from components.features.store import apply, feature_names, open_store
from serving.state.user_state import StateTable
from serving.system import System


def materialize(system: System, features: Path, out: Path, views: tuple[str, ...] = ("user_stats",)) -> dict[str, int]:
    """Fill a new online store under `out` with the last cut's rows, then put it in the place of the old one; rows by view.

    `features`: the output of `build`. Items need not be online (the bundle holds their features), so only users are by default.
    """
    until = parse_moment(json.loads((features / "features.json").read_text())["until"])
    final = out / open_store(system, out).config.online_store.path
    fresh = final.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    store = apply(system, out, until, online=fresh)
    written = {view: _write_view(store, view, features / f"{view}.parquet", until) for view in views}
    fresh.replace(final)  # a reader of the old file keeps it; SQLite is never read while it is written
    return written


def _write_view(store: Any, view: str, snapshots: Path, until: datetime) -> int:
    """Write one view's newest snapshot that is not after `until`; how many rows. Feast skips an empty frame without a word: not asked."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(snapshots)
    table = table.filter(pc.less_equal(table["event_timestamp"], until))  # later weeks are there to judge by
    newest = table.filter(pc.equal(table["event_timestamp"], pc.max(table["event_timestamp"]))) if table.num_rows else table
    if newest.num_rows:
        store.write_to_online_store(view, newest.to_pandas())
    return int(newest.num_rows)


def online_features(system: System, online: Path, user_id: str) -> dict[str, float | None]:
    """One user's row as Feast's online store under `online` has it, by name; None where it knows nothing."""
    store = open_store(system, online)
    answer = store.get_online_features(features=store.get_feature_service("users"), entity_rows=[{"user_id": user_id}]).to_dict()
    return {name: answer[name][0] for name in feature_names(store, "users")}


def last_states(features: Path, until: str) -> StateTable:
    """The states at the last cut of a `build` output."""
    return StateTable.load(features / "cuts" / cut_name(parse_moment(until)) / "users")


def packed_states(states: StateTable) -> Iterator[tuple[str, bytes]]:
    """(user id, packed state) of every user: what a server's store is filled with."""
    for index in range(len(states)):
        state = states[index]
        yield state.user_id, state.pack()
