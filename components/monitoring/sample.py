"""From served rows of any number to two samples that fit in memory: one row a user, drawn by hash, a bounded number of users.

A user's rows resemble each other, so tests that count rows cry wolf; one row a user makes them independent. The same table gives the
same sample.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.duck import connect

if TYPE_CHECKING:
    import pandas as pd

UNIT, TIME = "user_id", "timestamp"
ROWS = 20_000  # of a sample; a shift of .05 in a distribution function is seen with far fewer
MEMORY = "1500MB"  # of DuckDB, for each of the two samples


@dataclass(frozen=True)
class Window:
    """One window of served rows: its sample, and exact counts over all of its rows."""

    sample: "pd.DataFrame"  # one row a user
    rows: int
    users: int
    nulls: dict[str, int]  # of every column, over all rows
    first: str
    last: str


def draw(table: Path, most: int = ROWS, since: str = "", until: str = "") -> Window:
    """The window of a Parquet table of served rows with `user_id` and `timestamp`, from `since` to before `until` where they are given."""
    connection = connect(MEMORY)
    connection.execute("SET preserve_insertion_order = false")
    try:
        bounds = [f"{TIME}::TIMESTAMPTZ {sign} TIMESTAMPTZ '{moment}'" for sign, moment in ((">=", since), ("<", until)) if moment]
        inside = f"WHERE {' AND '.join(bounds)}" if bounds else ""
        aware = f"* REPLACE ({TIME}::TIMESTAMPTZ AS {TIME})"  # nanoseconds, as pandas writes them, would lose their zone
        source = f"(SELECT {aware} FROM read_parquet({_text(table)}, file_row_number = true) {inside})"
        names = [name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall() if name != "file_row_number"]
        counted = ", ".join(f'count(*) - count("{name}")' for name in names)
        rows, users, first, last, *nulls = connection.execute(
            f"SELECT count(*), approx_count_distinct({UNIT}), min({TIME})::VARCHAR, max({TIME})::VARCHAR, {counted} FROM {source}"
        ).fetchall()[0]
        share = max(1, int(users / (1.2 * most)))  # of the users, who are drawn before their rows are looked at
        connection.execute(
            f"""CREATE TEMP TABLE drawn AS SELECT arg_min(file_row_number, hash(file_row_number)) AS n
            FROM {source} WHERE hash({UNIT}) % {share} = 0 GROUP BY {UNIT} ORDER BY hash({UNIT}) LIMIT {most}"""
        )
        kept = f"SELECT * EXCLUDE (file_row_number) FROM {source} WHERE file_row_number IN (SELECT n FROM drawn) ORDER BY hash({UNIT})"
        sample = connection.execute(kept).df()
    finally:
        connection.close()
    return Window(sample, int(rows), int(users), dict(zip(names, map(int, nulls), strict=True)), str(first), str(last))


def same_weekdays(reference: "pd.DataFrame", current: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Both samples with the current one's mix of weekdays: what differs then is not the day of the week.

    Rows of a weekday that the reference lacks are left out of both.
    """
    then, now = (frame[TIME].dt.weekday.to_numpy() for frame in (reference, current))
    common = sorted(set(then.tolist()) & set(now.tolist()))
    kept = current[[day in common for day in now.tolist()]]
    if not len(kept):
        return reference.iloc[:0], kept
    shares = {day: float((kept[TIME].dt.weekday == day).mean()) for day in common}
    size = min(float((then == day).sum()) / share for day, share in shares.items())
    parts = [reference[then == day].iloc[: round(size * share)] for day, share in shares.items()]
    import pandas as pd

    return pd.concat(parts), kept


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
