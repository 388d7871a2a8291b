"""`shortlist schedule`: the lines for cron that train again. A daemon of our own would have to be kept running; cron already is.

Lines rather than an installed table: `(crontab -l; shortlist schedule shop) | crontab -` adds them, and whoever reads them knows what runs.
"""

import re
import shlex
import sys
from pathlib import Path

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # in cron's order


class BadTime(ValueError):
    """A time of day or a day of the week that is none."""


def cron_lines(system: str, at: str, on: str, home: Path, options: list[str], where: Path) -> list[str]:
    """A comment and one line. `at`: HH:MM in the machine's time; `on`: "daily" or days of the week; `where`: the folder it runs in.

    The training is one at a time (`--alone`): one that takes longer than a day is not joined by the next. Raises `BadTime`.
    """
    hour, minute, days = time_of(at, on)
    home = home if home.is_absolute() else where / home
    train = [sys.executable, "-m", "pipelines", "train", system, "--alone", "--home", str(home), *options]
    log = shlex.quote(str(home / "schedule.log"))
    line = f"cd {shlex.quote(str(where))} && {shlex.join(train)} >> {log} 2>&1".replace("%", r"\%")  # cron ends a line at a bare %
    return [f"# shortlist: {system} learns again {on} at {at}", f"{minute} {hour} * * {days} {line}"]


def time_of(at: str, on: str) -> tuple[int, int, str]:
    """Hour, minute and the days as cron writes them. Raises `BadTime`."""
    return *_time(at), _days(on)


def _time(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    if not found or int(found[1]) > 23 or int(found[2]) > 59:
        raise BadTime(f"{text!r} is no time of day: write it like 03:00")
    return int(found[1]), int(found[2])


def _days(on: str) -> str:
    if on == "daily":
        return "*"
    names = [name.strip().lower()[:3] for name in on.split(",")]
    if unknown := [name for name in names if name not in DAYS]:
        raise BadTime(f"{unknown[0]!r} is no day of the week: write {', '.join(DAYS)}, several with commas, or daily")
    return ",".join(str(day) for day in sorted({DAYS.index(name) for name in names}))
