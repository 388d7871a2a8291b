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


def cron_lines(system: str, at: str, full_on: str, home: Path, options: list[str], where: Path) -> list[str]:
    """A comment and a line for the days of full trainings, the same for the daily ones between them. `at`: HH:MM in the machine's time;
    `full_on`: days of the week; `where`: the folder it runs in.

    What passed the gate is learnt again from all rows (`--refit`): a training whose last week only judged would never be fresh. One at a
    time (`--alone`): one that takes longer than a day is not joined by the next. Raises `BadTime`.
    """
    hour, minute = _time(at)
    home = home if home.is_absolute() else where / home
    full = _days(full_on)
    modes = {"full": full, "daily": [day for day in range(len(DAYS)) if day not in full]}
    lines = []
    for mode, days in modes.items():
        if days:
            named = ",".join(DAYS[day] for day in days)
            line = _line(["train", system, "--mode", mode, "--refit", "--alone", "--home", str(home), *options], home, where)
            lines.append(f"# shortlist: {system} learns again, {mode}, on {named} at {at}")
            lines.append(f"{minute} {hour} * * {','.join(map(str, days))} {line}")
    return lines


def _line(words: list[str], home: Path, where: Path) -> str:
    log = shlex.quote(str(home / "schedule.log"))
    command = shlex.join([sys.executable, "-m", "pipelines", *words])
    return f"cd {shlex.quote(str(where))} && {command} >> {log} 2>&1".replace("%", r"\%")  # cron ends a line at a bare %


def time_of(at: str, on: str) -> tuple[int, int, str]:
    """Hour, minute and the days as cron writes them; `on`: days of the week, or "daily". Raises `BadTime`."""
    return *_time(at), "*" if on == "daily" else ",".join(map(str, _days(on)))


def _time(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    if not found or int(found[1]) > 23 or int(found[2]) > 59:
        raise BadTime(f"{text!r} is no time of day: write it like 03:00")
    return int(found[1]), int(found[2])


def _days(on: str) -> list[int]:
    names = [name.strip().lower()[:3] for name in on.split(",")]
    if unknown := [name for name in names if name not in DAYS]:
        raise BadTime(f"{unknown[0]!r} is no day of the week: write {', '.join(DAYS)}, several with commas")
    return sorted({DAYS.index(name) for name in names})
