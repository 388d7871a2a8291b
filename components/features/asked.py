"""Whoever came after a cut, each told up to a moment of their own: what the server knew of them when it was asked amid their session.

Where users are sessions nobody known at a cut comes back, so those are asked who began after it. Of each one moment is drawn, by a hash
of its name, among those after which something else was chosen; the question is what was chosen next. One a session: sessions are alike
for no reason, so that errors of means are those of independent questions.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import ASKED
from components.features.states import DAY, states_of
from components.features.tables import Tables

_MICROSECONDS = 86_400_000_000  # a day


def draw(tables: Tables, day: float, days: int) -> None:
    """Make the table `asked`: `user_id, asked_day` (since 1970), `item_id` (chosen next), of those who came after the cut."""
    drawn = questions('(SELECT *, epoch_us("timestamp") AS moment FROM personal)', day, days)
    tables.backend.raw_sql(f"CREATE OR REPLACE TEMP TABLE asked AS SELECT user_id, moment / 86400e6 AS asked_day, item_id FROM ({drawn})")


def questions(positives: str, day: float, days: int) -> str:
    """A query: `user_id, moment` (microseconds) and the `item_id` chosen next, of each who began in the days from `day` on.

    `positives`: what may be learnt from, with `user_id, item_id, moment`. What is chosen at one moment has no order, so no question.
    """
    begin, end = (int(at * _MICROSECONDS) for at in (day, day + days))
    return f"""
    SELECT user_id, moment, following AS item_id FROM (
        SELECT user_id, item_id, moment, min(moment) OVER (PARTITION BY user_id) AS begun,
            lead(item_id) OVER told AS following, lead(moment) OVER told AS after
        FROM {positives} WINDOW told AS (PARTITION BY user_id ORDER BY moment, item_id)
    ) WHERE begun >= {begin} AND after < {end} AND after > moment AND following <> item_id
    QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY hash(user_id, moment), moment) = 1"""


def write_states(tables: Tables, day: float, features: NDArray[np.float32], feature_names: tuple[str, ...], out: Path) -> int:
    """Write the asked's states under `out/asked`, where anybody is asked; how many. `features` (A, Fu): in the order of `names`."""
    past = f"SELECT personal.*, {DAY} AS day FROM personal JOIN asked USING (user_id) WHERE {DAY} <= asked_day"
    tables.backend.raw_sql(f"CREATE OR REPLACE TEMP VIEW past AS {past}")
    tables.backend.raw_sql("CREATE OR REPLACE TEMP VIEW asked_users AS SELECT raw_users.* FROM raw_users SEMI JOIN asked USING (user_id)")
    said = f"(SELECT sayings.* FROM sayings JOIN asked USING (user_id) WHERE {DAY} <= asked_day)"
    days = tables.arrow("SELECT asked_day FROM asked ORDER BY user_id")["asked_day"].to_numpy().astype(np.float64)
    if len(days):
        states_of(tables, "asked_users", said, day, features, feature_names, days).save(out / ASKED)
    return len(days)


def names(tables: Tables) -> list[str]:
    """Those who are asked, sorted by the bytes of their id."""
    found: list[str] = tables.arrow("SELECT user_id FROM asked ORDER BY user_id")["user_id"].to_pylist()
    return found


def since(rows: str) -> str:
    """Of a view of events those that came after each was asked."""
    return f"(SELECT {rows}.* FROM {rows} JOIN asked USING (user_id) WHERE {DAY} > asked_day)"
