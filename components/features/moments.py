"""Cuts: the moments at which the world is looked at. A cut's folder is named after it, so names sort as times do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from components.data.duck import connect, quoted
from feature_repo.schema import SECONDS_A_DAY
from serving.event_meanings import least_values
from serving.system import Learning, System, load_system


def parse_moment(text: str | datetime) -> datetime:
    """An aware moment in UTC. `2017-11-27` is that day's midnight in UTC; a time of day must carry its offset.

    Raises `ValueError` for anything else.
    """
    moment = datetime.fromisoformat(text) if isinstance(text, str) else text
    if moment.tzinfo is None:
        if (moment.hour, moment.minute, moment.second, moment.microsecond) != (0, 0, 0, 0):
            raise ValueError(f"the time {text} has no offset: write it with one, for example {moment.isoformat()}+00:00")
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def cut_name(cut: datetime) -> str:
    """`2017-11-27`, or `2017-11-27T103000` when it is not midnight."""
    return cut.strftime("%Y-%m-%d" if (cut.hour, cut.minute, cut.second) == (0, 0, 0) else "%Y-%m-%dT%H%M%S")


def cut_day(cut: datetime) -> float:
    """Days since 1970."""
    return cut.timestamp() / SECONDS_A_DAY


def rolling_cuts(until: datetime, count: int, learning: Learning) -> list[datetime]:
    """`count` cuts `every_days` apart and then `until`, ascending; the labels of every cut but the last lie before `until`."""
    latest = until - timedelta(days=learning.least_days)
    return [latest - timedelta(days=learning.every_days * back) for back in reversed(range(count))] + [until]


def most_cuts(first_day: float, until_day: float, learning: Learning) -> int:
    """How many of them may lie behind the first event."""
    return int((until_day - first_day) / learning.every_days) + 1


JUDGED_WEEKS = 2  # target lengths after the cut that are judged, where the rows reach so far


def later_cuts(until: datetime, horizon_days: int, last_day: float) -> list[datetime]:
    """Cuts after `until`, a target's length apart, whose whole target lies before the last event's day ends."""
    cuts = [until + timedelta(days=horizon_days * step) for step in range(1, JUDGED_WEEKS)]
    return [cut for cut in cuts if cut_day(cut) + horizon_days <= last_day // 1 + 1]


def judged_days(until: datetime, horizon_days: int, last_day: float) -> int:
    """Days of the target after `until` that the rows reach, the last one begun: all of it, or fewer where they end before."""
    return max(0, min(horizon_days, ceil(last_day // 1 + 1 - cut_day(until))))


FAST_CUTS = 2  # cuts a `--fast` run learns its rankers from


class BadMoment(ValueError):
    """The given cut is no moment, or lies outside the data."""


def moment(system: str, tables: Path | str, until: str) -> str:
    """The cut as an ISO timestamp in UTC: `until`; "end": the midnight after the last day; empty: a target's length before that.

    Raises `BadMoment` when `until` is not a timestamp, or nothing to learn from lies before it.
    """
    found = load_system(system)
    first, last = span(Path(tables), found)
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if until == "end":
        return midnight.isoformat()
    if not until:
        return (midnight - timedelta(days=found.learning.horizon_days)).isoformat()
    try:
        cut = parse_moment(until)
    except ValueError as problem:
        raise BadMoment(f"--until {until!r} is no moment: write it like 2017-11-27 or 2017-11-27T06:00:00+00:00") from problem
    if cut <= first:
        raise BadMoment(f"--until {until} leaves nothing to learn from: the first event is at {first.isoformat()}; choose a later moment")
    return cut.isoformat()


def span(tables: Path, system: System) -> tuple[datetime, datetime]:
    """Time of the first event that is learnt from, and of the last on the last day that the data reach (`last_day`)."""
    with opened_positives(tables, system) as connection:
        days = connection.execute(
            "SELECT day, count(DISTINCT user_id), min(moment), max(moment) FROM positives GROUP BY day ORDER BY day"
        ).fetchall()
    if not days:
        raise BadMoment(f"{tables} holds no {' or '.join(system.learning.positives)} event that may be learnt from: see `shortlist check`")
    last = last_day([users for _, users, _, _ in days])
    return _utc(days[0][2]), _utc(days[last][3])


def _utc(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


LONE = 0.1  # of the median day's users: a day with no more does not end the data


def last_day(users: Sequence[int]) -> int:
    """Which of the days (ascending, each with its users) ends the data: the last but for stragglers. One client does not move the cut."""
    lone = LONE * median(users)
    return max(day for day, count in enumerate(users) if count > lone)


@contextmanager
def opened_positives(tables: Path, system: System) -> Iterator[Any]:
    """A DuckDB connection with the view `positives`: `user_id, item_id, moment (µs since 1970), day` of what may be learnt from."""
    connection = connect()
    try:
        events, users = (quoted(str(tables / f"{name}.parquet")) for name in ("events", "users"))
        needed = " ".join(
            f"AND (event_type <> {quoted(name)} OR coalesce(value, -1) >= {least!r})" for name, least in least_values(system.events).items()
        )
        connection.execute(
            f"""CREATE VIEW positives AS SELECT user_id, item_id, epoch_us("timestamp") AS moment, moment // 86400000000 AS day
            FROM read_parquet({events}) WHERE event_type IN ({", ".join(map(quoted, system.learning.positives))}) {needed}
            AND user_id NOT IN (SELECT user_id FROM read_parquet({users}) WHERE consent <> 'full')"""
        )
        yield connection
    finally:
        connection.close()


def cuts_of(system: str, fast: bool, mode: str = "full") -> int:
    """How many cuts the rankers learn from: a daily training goes on from one that knows the others."""
    if mode == "daily":
        return 1
    cuts = load_system(system).learning.cuts
    return min(cuts, FAST_CUTS) if fast else cuts
