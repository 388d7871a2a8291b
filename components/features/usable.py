"""Whether there is enough to learn from and to judge by, found in a second, before the minutes are spent."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.data.duck import connect, quoted
from components.features.moments import cut_name, judged_days, most_cuts, opened_positives, rolling_cuts
from serving.system import System

LEAST_JUDGED = 2  # users: the error of a mean needs two


class NotEnough(ValueError):
    """The tables are sound, but this system cannot learn from them, or nobody could judge what it learnt."""


@dataclass(frozen=True)
class Enough:
    """What there is to learn from and to judge by at a cut."""

    before: int  # positives before the cut
    judged_users: int  # users with positives in the days after it
    judged: int  # those positives
    judged_days: int  # of the target after the cut that the rows reach
    weeks: int  # weekly cuts before it with positives after them: what the rankers can learn from


def refuse_too_little(system: System, tables: Path, until: str, must_judge: bool = True) -> None:
    """Raise `NotEnough` when `system` cannot learn from the accepted `tables` at the cut `until` (ISO), or not be judged there."""
    problem = too_little(system, tables, until, must_judge)
    if problem:
        raise NotEnough(problem)


def too_little(system: System, tables: Path, until: str, must_judge: bool = True) -> str:
    """What is too little, and what to do; empty when there is enough."""
    cut = datetime.fromisoformat(until)
    found = count(system, tables, cut)
    learnt = " or ".join(system.learning.positives)
    days, amid = system.learning.horizon_days, system.learning.asked == "amid sessions"
    if amid and not found.before:
        return f"no session before {cut_name(cut)} has two different {learnt}, one after the other: there is no telling what comes next"
    if must_judge and found.before and not found.judged:
        nothing = f"no session with two different {learnt} lies" if amid else f"nobody's {learnt} lies"
        return f"{nothing} in the {days} days after {cut_name(cut)}, so there is nothing to judge by: choose an earlier --until"
    if not found.weeks:
        least = system.learning.least_days
        return (
            f"{_span_sentence(system, tables)}: a target of {days} days to judge by, {least} days before it to learn from,"
            f" and something known before those; give more days"
        )
    if must_judge and found.judged_users < LEAST_JUDGED:
        whom = "session" if amid else "user"
        return (
            f"{found.judged_users} {whom} has a {learnt} in the {days} days after {cut_name(cut)}, and a comparison needs at least"
            f" {LEAST_JUDGED}: one {whom} cannot be judged; give the events of more {whom}s, or choose another --until"
        )
    return ""


def refuse_without_positives(system: System, tables: Path) -> None:
    """Raise `NotEnough` when the accepted `tables` hold nothing that `system` learns from."""
    problem = no_positives(system, tables)
    if problem:
        raise NotEnough(problem)


def no_positives(system: System, tables: Path) -> str:
    """Why nothing can be learnt from, by the types the events have; empty where there is a positive."""
    with opened_positives(tables, system) as connection:
        ((there,),) = connection.execute("SELECT count(*) FROM positives").fetchall()
    if there:
        return ""
    found = types_of(tables)
    have = ", ".join(f"{name} {number:,}" for name, number in found.items())
    best = next(iter(found), "click")
    if set(found) & set(system.learning.positives):
        return (
            f"this system learns from {' or '.join(system.learning.positives)}; your events have {have}, but none with the value it asks"
            " for or of a user whose consent is full: lower `at_least` in its `events`"
        )
    return (
        f"this system learns from {' or '.join(system.learning.positives)}; your events have {have}. Write a system that learns from them:"
        f' `shortlist new NAME --data DIR` does, or give a copy of {system.name}\'s file events={{"{best}": Positive()}}'
    )


def types_of(tables: Path) -> dict[str, int]:
    """Accepted events by type, most first."""
    connection = connect()
    try:
        query = f"SELECT event_type, count(*) AS n FROM read_parquet({quoted(str(tables / 'events.parquet'))}) GROUP BY ALL"
        return dict(connection.execute(f"{query} ORDER BY n DESC, event_type").fetchall())
    finally:
        connection.close()


def count(system: System, tables: Path, cut: datetime) -> Enough:
    """What lies before and after the cut."""
    end = cut + timedelta(days=system.learning.horizon_days)
    with opened_positives(tables, system) as connection:
        connection.execute(f"CREATE VIEW telling AS SELECT * FROM positives {_TELLING[system.learning.asked]}")
        ((before, judged, users, first, last),) = connection.execute(
            f"""SELECT count(*) FILTER (moment < {_micro(cut)}),
                count(*) FILTER (moment >= {_micro(cut)} AND moment < {_micro(end)}),
                count(DISTINCT user_id) FILTER (moment >= {_micro(cut)} AND moment < {_micro(end)}), min(moment), max(day)
            FROM telling"""
        ).fetchall()
        weeks = 0
        if first is not None and first < _micro(cut):
            asked = rolling_cuts(cut, most_cuts(first / 86_400e6, _micro(cut) / 86_400e6, system.learning), system.learning)[:-1]
            spans = [
                f"count(*) FILTER (moment >= {_micro(week)} AND moment < {_micro(week + timedelta(days=system.learning.horizon_days))})"
                for week in asked
                if _micro(week) > first
            ]
            weeks = sum(map(bool, connection.execute(f"SELECT {', '.join(spans)} FROM telling").fetchall()[0])) if spans else 0
    days = judged_days(cut, system.learning.horizon_days, -1.0 if last is None else last)
    return Enough(before, users, judged, days, weeks)


_TELLING = {  # of the positives those that can be asked about: in a session something else has to follow
    "users": "",
    "amid sessions": "WHERE user_id IN (SELECT user_id FROM positives GROUP BY user_id"
    " HAVING count(DISTINCT item_id) > 1 AND max(moment) > min(moment))",
}


def _micro(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _span_sentence(system: System, tables: Path) -> str:
    with opened_positives(tables, system) as connection:
        ((first, last),) = connection.execute("SELECT min(day), max(day) FROM positives").fetchall()
    days = last - first + 1
    needed = system.learning.horizon_days + system.learning.least_days
    return f"your events span {days} day{'s' if days != 1 else ''}; needed: more than {needed}"
