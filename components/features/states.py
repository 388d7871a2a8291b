"""Every user's state at a cut, all at once: the same numbers as folding `UserState.with_positive` event by event.

Shapes: U users, N history rows, T decay constants.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.features.tables import Tables
from feature_repo.names import TAUS_DAYS
from serving.state.user_state import StateTable

DAY = '(epoch_us("timestamp") / 86400e6)'  # of an event, since 1970


def build_states(tables: Tables, day: float, features: NDArray[np.float32], feature_names: tuple[str, ...]) -> StateTable:
    """The states at `day`. `features` (U, Fu): a row a user, in the order of `user_ids(tables)`."""
    tables.backend.raw_sql(f"CREATE OR REPLACE TEMP VIEW past AS SELECT *, {DAY} AS day FROM personal WHERE {DAY} < {day!r}")
    return states_of(tables, "raw_users", f"(SELECT * FROM sayings WHERE {DAY} < {day!r})", day, features, feature_names)


def states_of(
    tables: Tables, of: str, sayings: str, day: float, features: NDArray[np.float32], feature_names: tuple[str, ...],
    asked_days: NDArray[np.float64] | None = None,
) -> StateTable:  # fmt: skip
    """The states of the users in the view `of`, from the view `past` of their positives and the relation `sayings`; they may go on beyond
    the cut at `day`, up to when each is asked."""
    users = tables.arrow(_users(day, of))
    rows = tables.arrow(_rows(of))
    user = rows["user_row"].to_numpy()  # (N,)
    keys = tables.keys[rows["item_row"].to_numpy()]  # (N,)
    order = np.lexsort((keys, user))  # by user, then key
    decayed = np.stack([rows[f"decayed_{t}"].to_numpy() for t in range(len(TAUS_DAYS))], axis=1)  # (N, T)
    said = tables.arrow(_said(sayings, of))
    said_keys, sayer = tables.keys[said["item_row"].to_numpy()], said["user_row"].to_numpy()
    said_order = np.lexsort((said_keys, sayer))  # by user, then key
    return StateTable(
        user_ids=_bytes(users["user_id"]),
        ends=np.cumsum(np.bincount(user, minlength=len(users))).astype(np.int64),
        keys=keys[order],
        first_day=rows["first_day"].to_numpy()[order],
        last_day=rows["last_day"].to_numpy()[order],
        counts=rows["count"].to_numpy().astype(np.float32)[order],
        decayed=decayed.astype(np.float32)[order],
        features=features,
        place=_bytes(users["place"]),
        region=_bytes(users["region"]),
        consent=_bytes(users["consent"]),
        created_day=users["created_day"].to_numpy(zero_copy_only=False).astype(np.float64),
        feature_names=feature_names,
        cut_day=day,
        said_ends=np.cumsum(np.bincount(sayer, minlength=len(users))).astype(np.int64),
        said_keys=said_keys[said_order],
        said_days=said["day"].to_numpy()[said_order],
        said=said["said"].to_numpy().astype(np.uint8)[said_order],
        asked_days=np.empty(0) if asked_days is None else asked_days,
    )


def user_ids(tables: Tables) -> list[str]:
    """All users, sorted by the bytes of their id."""
    ids: list[str] = tables.arrow("SELECT user_id FROM raw_users ORDER BY user_id")["user_id"].to_pylist()
    return ids


def _users(day: float, of: str) -> str:
    """A row a user. Region and first day are those of the first visit: a user who comes after the cut has none yet."""
    return f"""
    WITH visits AS (SELECT user_id, store, count(*) AS n, max(day) AS last FROM past WHERE store IS NOT NULL GROUP BY ALL),
    usual AS (SELECT user_id, arg_max(store, (n, last, store)) AS place FROM visits GROUP BY ALL),
    known AS (SELECT *, created_at IS NULL OR epoch_us(created_at) / 86400e6 < {day!r} AS come FROM {of})
    SELECT user_id, coalesce(place, '') AS place, CASE WHEN come THEN coalesce(region, '') ELSE '' END AS region, consent,
        CASE WHEN come THEN epoch_us(created_at) / 86400e6 ELSE NULL END AS created_day
    FROM known LEFT JOIN usual USING (user_id) ORDER BY user_id"""


def _rows(of: str) -> str:
    """A row a user and item: c(last) = sum of weight * exp(-(last - t) / tau) over its events."""
    decayed = ", ".join(f"sum(weight * exp((day - last) / {tau!r})) AS decayed_{t}" for t, tau in enumerate(TAUS_DAYS))
    return f"""
    WITH numbered AS (SELECT user_id, row_number() OVER (ORDER BY user_id) - 1 AS user_row FROM {of}),
    aged AS (SELECT user_id, item_id, day, weight, max(day) OVER (PARTITION BY user_id, item_id) AS last FROM past)
    SELECT user_row, item_row, min(day) AS first_day, any_value(last) AS last_day, count(*) AS count, {decayed}
    FROM aged JOIN numbered USING (user_id) JOIN items USING (item_id) GROUP BY user_row, item_row"""


def _said(sayings: str, of: str) -> str:
    """A row a user and item of which something was said: what was said last, the stronger of two words of one moment."""
    return f"""
    WITH numbered AS (SELECT user_id, row_number() OVER (ORDER BY user_id) - 1 AS user_row FROM {of}),
    told AS (SELECT user_id, item_id, said, {DAY} AS day FROM {sayings})
    SELECT user_row, item_row, max(day) AS day, arg_max(said, (day, said)) AS said
    FROM told JOIN numbered USING (user_id) JOIN items USING (item_id) GROUP BY user_row, item_row"""


def _bytes(column: Any) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in column.to_pylist()], dtype=np.bytes_)
