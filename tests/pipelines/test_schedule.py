"""The lines for cron say when, where, and what; a wrong time is named."""

import shlex
import sys
from pathlib import Path

import pytest

from pipelines.schedule import BadTime, cron_lines


def test_full_on_its_days_and_daily_on_the_others_each_learnt_again_from_all_rows() -> None:
    lines = cron_lines("shop", "3:05", "sun", Path(".shortlist"), ["--seed", "1"], Path("/a folder"))
    assert lines[0::2] == [
        "# shortlist: shop learns again, full, on sun at 3:05",
        "# shortlist: shop learns again, daily, on mon,tue,wed,thu,fri,sat at 3:05",
    ]
    for line, when, mode in zip(lines[1::2], ("5 3 * * 0 ", "5 3 * * 1,2,3,4,5,6 "), ("full", "daily"), strict=True):
        assert line.startswith(when)
        train = f"{sys.executable} -m pipelines train shop --mode {mode} --refit --alone --home /a folder/.shortlist --seed 1"
        assert " ".join(shlex.split(line[len(when) :])) == f"cd /a folder && {train} >> /a folder/.shortlist/schedule.log 2>&1"


def test_days_are_cron_s_numbers_and_a_percent_sign_is_hidden_from_it() -> None:
    lines = cron_lines("shop", "23:59", "Sun,wednesday", Path("/h%"), [], Path("/"))
    assert lines[1].startswith("59 23 * * 0,3 cd / && ")
    assert r"/h\%/schedule.log" in lines[3]


def test_no_daily_line_where_every_day_is_full() -> None:
    assert len(cron_lines("shop", "3:00", "sun,mon,tue,wed,thu,fri,sat", Path("/h"), [], Path("/"))) == 2


@pytest.mark.parametrize(
    ("at", "on", "message"),
    [("24:00", "sun", "'24:00' is no time"), ("03", "sun", "'03' is no"), ("3:00", "someday", "'som' is no day")],
)
def test_a_time_that_is_none_is_named(at: str, on: str, message: str) -> None:
    with pytest.raises(BadTime, match=message):
        cron_lines("shop", at, on, Path(".shortlist"), [], Path("/"))
