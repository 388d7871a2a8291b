"""What was known, asked and chosen at users' visits, made again by the code that serves: one row a user, what drift is measured on.

A visit is a day on which a user had something. The state just before it is folded from the tables' events and those served since, as the
server folds it, and the champion answers from it: its request features, the user's vector, its scores, and how much of what was then
chosen it had listed. Shapes: U visits, H events of one user before the visit.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.data.duck import connect
from components.evaluation.batch import open_recommender
from components.features.moments import last_day
from feature_repo.names import request_names
from feature_repo.schema import SECONDS_A_DAY
from serving.query import Request
from serving.ranking.features import request_features
from serving.recommender import Recommender
from serving.state.fold import Fold
from serving.state.store import StateEvent
from serving.state.user_state import StateTable, UserState
from serving.system import System

if TYPE_CHECKING:
    import pandas as pd

VISITS = 2_000  # of a window: users drawn by hash
BEFORE_DAYS = 1e-6  # a state is that of the moment before its visit
MEMORY = "2GB"
TEXTS = ("event_type", "device_type", "context_store", "context_region")
GROWING = ("log_account_days", "log_history_items", "log_history_events")  # with time alone: shown, not tested
_DAY = 'epoch_us("timestamp") / 86400e6'


@dataclass(frozen=True)
class KnownBefore:
    """One user's events before a visit, oldest first."""

    items: list[str]
    kinds: list[str]
    days: NDArray[np.float64]
    values: list[float]  # NaN: not said


class Visits:
    """Users' visits in the accepted tables with what was served since. Close after use."""

    def __init__(self, system: System, tables: Path, served: Path | None) -> None:
        self.system, self._db = system, connect(MEMORY)
        self._db.execute("SET preserve_insertion_order = false")
        source = f"SELECT * FROM read_parquet({_text(tables / 'events.parquet')})"
        if served is not None:
            fresh = f"SELECT * FROM read_parquet({_text(served / 'events.parquet')}) ANTI JOIN ({source}) USING (event_id)"
            source += f" UNION ALL BY NAME {fresh}"
        self._db.execute(f"CREATE VIEW events AS {source}")
        self._positive = f"event_type IN ({_texts(system.learning.positives)})"

    def close(self) -> None:
        self._db.close()

    def last(self) -> datetime | None:
        """When anything was had last, on the last day that the data reach: one client's clock does not move the window."""
        days = self._db.execute(
            f"""SELECT max({_DAY}), count(DISTINCT user_id) FROM events WHERE {self._positive} AND {_DAY} < {_days(datetime.now(UTC))!r}
            GROUP BY floor({_DAY}) ORDER BY 1"""
        ).fetchall()
        return datetime.fromtimestamp(days[last_day([users for _, users in days])][0] * SECONDS_A_DAY, UTC) if days else None

    def draw(self, since: datetime, until: datetime, most: int = VISITS) -> list[tuple[Any, ...]]:
        """(user, first moment in days, items chosen, texts of one event, value, price) of one visit a user, at most so many users."""
        inside = f"{_DAY} >= {_days(since)!r} AND {_DAY} < {_days(until)!r} AND {self._positive}"
        one = ", ".join(f"arg_min({name}, hash(event_id))" for name in (*TEXTS, "value", "price"))
        return self._db.execute(
            f"""WITH here AS (SELECT *, {_DAY} AS day FROM events WHERE {inside}),
            users AS (SELECT user_id, arg_min(floor(day), hash(floor(day), user_id)) AS date FROM here GROUP BY user_id
                ORDER BY hash(user_id) LIMIT {most})
            SELECT here.user_id, min(day), list(DISTINCT item_id ORDER BY item_id), {one}
            FROM here JOIN users ON here.user_id = users.user_id AND floor(day) = date GROUP BY here.user_id ORDER BY here.user_id"""
        ).fetchall()

    def pasts(self, visits: list[tuple[str, float]]) -> dict[str, KnownBefore]:
        """What each user did before their visit."""
        import pyarrow as pa

        asked = pa.table({"user_id": [user for user, _ in visits], "visited": [at for _, at in visits]})
        self._db.register("asked", asked)
        kinds = _texts(tuple(self.system.learning.meanings))
        lists = ", ".join(f"list({name} ORDER BY day, event_id)" for name in ("item_id", "event_type", "day", "value"))
        told = f"SELECT * REPLACE (coalesce(value, 'nan'::DOUBLE) AS value), {_DAY} AS day FROM events WHERE event_type IN ({kinds})"
        rows = self._db.execute(
            f"""SELECT user_id, {lists} FROM ({told})
            JOIN asked USING (user_id) WHERE day < visited GROUP BY user_id"""
        ).fetchall()
        self._db.unregister("asked")
        return {user: KnownBefore(items, types, np.asarray(days, np.float64), values) for user, items, types, days, values in rows}


def frame(system: System, bundle: Path, users: Path, visits: Visits, since: datetime, until: datetime) -> "pd.DataFrame":
    """The window's visits as the champion would have answered them: a row a user."""
    import pandas as pd

    recommender, table = open_recommender(system, bundle), StateTable.load(users)
    drawn = visits.draw(since, until)
    pasts = visits.pasts([(user, at) for user, at, *_ in drawn])
    nothing = KnownBefore([], [], np.empty(0), [])
    return pd.DataFrame([_row(system, recommender, table, visit, pasts.get(visit[0], nothing)) for visit in drawn])


def _row(system: System, recommender: Recommender, table: StateTable, visit: tuple[Any, ...], past: KnownBefore) -> dict[str, Any]:
    user, day, chosen, *said = visit
    state = state_before(system, table, user, past)
    query = recommender.query(Request(user, system.answer_size, day - BEFORE_DAYS), state)
    side = recommender.user_side(query)
    names = request_names(recommender.bundle.user_features)
    features = request_features(query)
    pool = recommender.retrieve(query, side)
    arranged = recommender.arrange(query, recommender.scoring.order(pool, recommender.scoring.rank(query, side, pool)))
    listed = {recommender.catalogue.item_id(row) for row in arranged.rows.tolist()}
    row = recommender.catalogue.row_of(chosen[0])
    return {
        "user_id": user,
        "timestamp": datetime.fromtimestamp(day * SECONDS_A_DAY, UTC),
        **dict(zip(names, np.pad(features, (0, len(names) - len(features)), constant_values=np.nan).tolist(), strict=True)),
        "prediction": float(arranged.scores.mean()) if len(arranged.scores) else np.nan,
        "answer_hits": len(listed & set(chosen)) / min(len(chosen), system.answer_size),
        "chosen_items": len(chosen),
        "chosen_category": recommender.catalogue.category_name(row) if row >= 0 else None,
        **dict(zip((*TEXTS, "value", "price"), said, strict=True)),
        **({"vector": side.vector.astype(np.float32)} if len(side.vector) else {}),
    }


def state_before(system: System, table: StateTable, user: str, past: KnownBefore) -> UserState:
    """The user's state from the events before a moment alone, folded as the server folds them."""
    index = table.index(user)
    known = table[index] if index >= 0 else UserState(user)
    empty = UserState(user, place=known.place, region=known.region, consent=known.consent, created_day=known.created_day)
    told = zip(past.items, past.kinds, past.days.tolist(), past.values, strict=True)
    events = [StateEvent(str(at), user, item, kind, day, value) for at, (item, kind, day, value) in enumerate(told)]
    folded = Fold(system.learning).of(empty, events)
    return replace(folded, features=known.features, schema_key=known.schema_key)


def _days(moment: datetime) -> float:
    return moment.timestamp() / SECONDS_A_DAY


def _texts(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
