"""The lines for cron say when, where, and what; a wrong time is named."""

import shlex
import sys
from pathlib import Path

import pytest

from pipelines.schedule import BadTime, cron_lines


def test_a_line_names_its_time_its_folder_and_the_command() -> None:
    comment, line = cron_lines("shop", "3:05", "daily", Path(".shortlist"), ["--seed", "1"], Path("/a folder"))
    assert comment == "# shortlist: shop learns again daily at 3:05"
    when, command = line[: len("5 3 * * *")], line[len("5 3 * * * ") :]
    assert when == "5 3 * * *"
    train = f"{sys.executable} -m pipelines train shop --alone --home /a folder/.shortlist --seed 1 >> /a folder/.shortlist/schedule.log"
    assert " ".join(shlex.split(command)) == f"cd /a folder && {train} 2>&1"


def test_days_are_cron_s_numbers_and_a_percent_sign_is_hidden_from_it() -> None:
    assert cron_lines("shop", "23:59", "Sun,wednesday", Path("/h%"), [], Path("/"))[1].startswith("59 23 * * 0,3 cd / && ")
    assert r"/h\%/schedule.log" in cron_lines("shop", "23:59", "mon", Path("/h%"), [], Path("/"))[1]


@pytest.mark.parametrize(
    ("at", "on", "message"),
    [("24:00", "daily", "'24:00' is no time"), ("03", "daily", "'03' is no"), ("3:00", "someday", "'som' is no day")],
)
def test_a_time_that_is_none_is_named(at: str, on: str, message: str) -> None:
    with pytest.raises(BadTime, match=message):
        cron_lines("shop", at, on, Path(".shortlist"), [], Path("/"))
