"""Cuts: the moments at which the world is looked at. A cut's folder is named after it, so names sort as times do."""

from datetime import UTC, datetime, timedelta

SECONDS_A_DAY = 86_400.0


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


def weekly_cuts(until: datetime, count: int, horizon_days: int) -> list[datetime]:
    """`count` cuts a week apart and then `until`, ascending; the labels of every cut but the last lie before `until`."""
    latest = until - timedelta(days=max(7, horizon_days))
    return [latest - timedelta(days=7 * back) for back in reversed(range(count))] + [until]
