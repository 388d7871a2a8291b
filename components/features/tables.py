"""The four accepted tables opened for feature making: one DuckDB connection, one history, one numbering of the items."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.duck import quoted, settings
from feature_repo.schema import SECONDS_A_DAY, TABLES
from serving.bundle.catalogue import item_key
from serving.event_meanings import Positive, Shown, worths_of
from serving.state.fold import SAID
from serving.system import System


@dataclass(frozen=True)
class Tables:
    """Shapes: I items, sorted by the bytes of their id."""

    backend: Any  # the Ibis DuckDB backend
    history: Any  # Ibis table of feature_repo.expressions.history, materialised: what is counted
    personal: Any  # of it, what users consent to be learnt from
    events: Any  # of every type
    personal_events: Any
    items: Any
    context: Any
    item_ids: NDArray[np.bytes_]  # (I,)
    keys: NDArray[np.uint64]  # (I,) item_key of each
    positives: int  # rows of the history
    first_day: float  # of the earliest; infinite when there are none
    last_day: float  # of the latest that was read

    def arrow(self, query: str) -> Any:
        """The query's rows as an Arrow table."""
        return self.backend.con.sql(query).to_arrow_table()

    def chosen(self, day: float, days: int) -> int:
        """Positives in the days from `day` on."""
        begin, end = (f"to_timestamp({at * SECONDS_A_DAY!r})" for at in (day, day + days))
        return int(self.arrow(f'SELECT count(*) AS n FROM personal WHERE "timestamp" >= {begin} AND "timestamp" < {end}')["n"][0].as_py())


@contextmanager
def open_tables(folder: Path, system: System, until_day: float, days: int) -> Iterator[Tables]:
    """Open `folder`, keeping only what the last cut and its labels need: rows before `until` and the days after it."""
    import ibis

    from feature_repo.expressions import history, worth

    backend = ibis.duckdb.connect()
    try:
        backend.raw_sql(f"{settings('4GB')}; SET preserve_insertion_order = false")
        named = {name: backend.read_parquet(str(folder / f"{name}.parquet"), table_name=f"raw_{name}") for name in TABLES}
        end = f"to_timestamp({(until_day + days) * 86_400.0!r})"
        backend.raw_sql(f'CREATE VIEW events AS SELECT * FROM raw_events WHERE "timestamp" < {end}')
        backend.raw_sql("CREATE TABLE items AS SELECT *, row_number() OVER (ORDER BY item_id) - 1 AS item_row FROM raw_items")
        events, worths = backend.table("events"), worths_of(system.learning.meanings)
        backend.create_table("history", history(events, backend.table("items"), named["context"], worths))
        backend.create_view("weighed", events.mutate(worth=worth(events.event_type, events.value, worths)))
        personal = "user_id NOT IN (SELECT user_id FROM raw_users WHERE consent <> 'full')"
        backend.raw_sql(f"CREATE VIEW personal AS SELECT * FROM history WHERE {personal}")
        backend.raw_sql(f"CREATE VIEW personal_events AS SELECT * FROM events WHERE {personal}")
        backend.raw_sql(f"CREATE VIEW sayings AS SELECT *, {_said(system)} AS said FROM events WHERE said IS NOT NULL AND {personal}")
        backend.raw_sql(f"CREATE VIEW outcomes AS SELECT * FROM weighed WHERE {personal}")
        shown = ", ".join(quoted(name) for name, meaning in system.learning.meanings.items() if isinstance(meaning, Shown))
        backend.raw_sql(f"CREATE VIEW shown AS SELECT * FROM events WHERE event_type IN ({shown or 'NULL'}) AND {personal}")
        day = 'epoch_us("timestamp") / 86400e6'
        ((count, first, last),) = backend.con.execute(f"SELECT count(*), min({day}), max({day}) FROM history").fetchall()
        ids = backend.con.sql("SELECT item_id FROM items ORDER BY item_row").to_arrow_table()["item_id"].to_pylist()
        yield Tables(
            backend=backend,
            history=backend.table("history"),
            personal=backend.table("personal"),
            events=backend.table("events"),
            personal_events=backend.table("personal_events"),
            items=backend.table("items"),
            context=named["context"],
            item_ids=np.array([item.encode() for item in ids], dtype=np.bytes_),
            keys=np.array([item_key(item) for item in ids], dtype=np.uint64),
            positives=int(count),
            first_day=float("inf") if first is None else float(first),
            last_day=float("-inf") if last is None else float(last),
        )
    finally:
        backend.disconnect()


def _said(system: System) -> str:
    """What an event says the user wants of the item, as a state has it; null where it says nothing."""
    meanings = system.learning.meanings.items()
    told = [(f"event_type = {quoted(name)}", SAID[type(meaning)]) for name, meaning in meanings if type(meaning) in SAID]
    told += [
        (f"event_type = {quoted(name)} AND value < {meaning.at_least!r}", SAID[type(meaning.below)])
        for name, meaning in meanings
        if isinstance(meaning, Positive) and meaning.below is not None
    ]
    cases = " ".join(f"WHEN {which} THEN {code}" for which, code in told)
    return f"CASE {cases} END" if told else "NULL"
