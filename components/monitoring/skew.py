"""Training/serving skew: what an answer knew of its user, beside what the events say that it should have known.

Of a sample of answers the server keeps the user's packed state (`serving/exposures/record.py`). The same state is made again from the
tables' events and those served since, as learning sees them, and both are turned into features by the same code. What differs was lost,
late, counted twice or computed otherwise on one of the two ways. Retraining does not cure that, so it is told beside the verdict.
"""

from pathlib import Path
from typing import Any

import numpy as np

from components.data.duck import connect, quoted
from components.evaluation.batch import open_recommender
from components.monitoring.rows import KnownBefore, Visits, state_before
from feature_repo.names import request_names
from serving.event_meanings import Signal
from serving.query import Request
from serving.ranking.features import request_features
from serving.recommender import Recommender
from serving.state.user_state import StateTable, UserState
from serving.system import System

ANSWERS = 500  # one a user, drawn by hash
TOLERANCE = 1e-3  # of a feature, beside 1: states keep decayed counts as float32
LEAST_SHARE = 0.05  # of the answers: below it, an event that came late now and then


def skew(system: System, bundle: Path, users: Path, visits: Visits, served: Path) -> dict[str, Any]:
    """How many recorded answers of `bundle` were looked at; of each request feature the share in which it differs, where that counts."""
    recorded = _recorded(bundle.name, served)
    if not recorded:
        return {"answers": 0, "columns": {}}
    recommender, table = open_recommender(system, bundle), StateTable.load(users)
    pasts, nothing = visits.pasts([(user, day) for user, day, _ in recorded]), KnownBefore([], [], np.empty(0), [])
    differs = np.stack(
        [
            _differs(recommender, Request(user, system.answer_size, day), UserState.unpack(packed), state_before(system, table, user, past))
            for user, day, packed in recorded
            for past in [_without_old_sessions(system, pasts.get(user, nothing), table.cut_day)]
        ]
    )  # (N, Fr)
    shares = dict(zip(request_names(recommender.bundle.user_features), differs.mean(0).tolist(), strict=True))
    return {"answers": len(recorded), "columns": {name: round(share, 4) for name, share in shares.items() if share >= LEAST_SHARE}}


def sentence(found: dict[str, Any]) -> str:
    """What to say of it; empty where nothing is skewed."""
    if not found["columns"]:
        return ""
    worst = sorted(found["columns"].items(), key=lambda one: -one[1])
    named = ", ".join(f"{name} in {share:.0%}" for name, share in worst[:3])
    more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
    return f" Training/serving skew in {found['answers']} recorded answers: {named}{more}; look for events that were lost or came twice."


def _recorded(digest: str, served: Path) -> list[tuple[str, float, bytes]]:
    """(user, day, packed state) of one answer a user."""
    file = served / "states.parquet"
    if not file.is_file():
        return []
    connection = connect()
    try:
        return connection.execute(
            f"""SELECT user_id, arg_min(day, hash(request_id)), arg_min(state, hash(request_id)) FROM read_parquet({quoted(str(file))})
            WHERE bundle = ? AND user_id <> '' GROUP BY user_id ORDER BY hash(user_id) LIMIT {ANSWERS}""",
            [f"sha256:{digest}"],
        ).fetchall()
    finally:
        connection.close()


def _without_old_sessions(system: System, past: KnownBefore, cut_day: float) -> KnownBefore:
    """Clicks and views of before the cut are in no state that learning leaves: a session begins after it."""
    signals = [name for name, meaning in system.learning.meanings.items() if isinstance(meaning, Signal)]
    kept = np.flatnonzero((past.days >= cut_day) | ~np.isin(past.kinds, signals)).tolist()
    return KnownBefore([past.items[at] for at in kept], [past.kinds[at] for at in kept], past.days[kept], [past.values[at] for at in kept])


def _differs(recommender: Recommender, request: Request, served: UserState, learnt: UserState) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(Fr,) which features differ. An unknown user's own are absent: NaN on both sides."""
    width = len(request_names(recommender.bundle.user_features))
    sides = [request_features(recommender.query(request, state)) for state in (served, learnt)]
    there, here = (np.pad(side, (0, width - len(side)), constant_values=np.nan) for side in sides)
    return ~np.isclose(there, here, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
