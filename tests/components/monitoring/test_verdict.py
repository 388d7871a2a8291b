"""Quiet windows stay quiet at the stated rate, planted shifts are found in the first window, and a season is no drift."""

import numpy as np
import pytest

from components.monitoring.sample import draw
from components.monitoring.verdict import ALPHA, DRIFT, NONE, UNSURE, clicked_by_bundle, judge
from tests.components.monitoring.windows import DAY, MONDAY, PLANTED, window, written


def judged(tmp_path, then, now, **bounds):
    return judge(draw(written(then, tmp_path / "then.parquet")), draw(written(now, tmp_path / "now.parquet"), **bounds))


def test_a_hundred_quiet_windows_raise_no_more_alarms_than_stated(tmp_path):
    reference = draw(written(window(0, users=300, rows_a_user=1), tmp_path / "then.parquet"))
    alarms = 0
    for seed in range(1, 101):
        alarms += judge(reference, draw(written(window(seed, users=300, rows_a_user=1), tmp_path / "now.parquet")))["verdict"] != NONE
    assert alarms <= 4  # at 1 % a window five or more of a hundred happen once in 290 times


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_shift_is_found_in_the_first_window_with_its_power(tmp_path, name):
    column, plant = PLANTED[name]
    reference = draw(written(window(0), tmp_path / "then.parquet"))
    found = [judge(reference, draw(written(plant(window(seed)), tmp_path / "now.parquet"))) for seed in range(1, 4)]
    assert all(
        any(cause["column"] == column for cause in verdict["causes"]) for verdict in found
    )  # at 3,000 users; `tests.bench.drift --power` counts often enough to state it
    assert all(len(verdict["causes"]) <= 2 for verdict in found)  # and little else is blamed


def test_a_window_of_weekend_days_is_compared_with_weekends(tmp_path):
    then = window(0, weekend=1.0)
    quiet = judged(tmp_path, then, window(1, weekend=1.0, start=MONDAY + 5 * DAY, days=2))
    assert quiet["verdict"] == NONE
    assert [one["column"] for one in quiet["season"]] == ["n0"]
    assert "1 more differ by the day of the week alone" in quiet["sentence"]
    moved = window(1, weekend=1.0, start=MONDAY + 5 * DAY, days=2)
    assert judged(tmp_path, then, moved.assign(n1=moved["n1"] + 0.5))["verdict"] == DRIFT


def test_too_few_users_cannot_be_judged(tmp_path):
    few = judged(tmp_path, window(0), window(1, users=20))
    assert (few["verdict"], few["causes"]) == (UNSURE, [])
    assert few["sentence"].startswith("Cannot judge: 20 users now")


def test_days_the_reference_lacks_cannot_be_judged(tmp_path):
    assert judged(tmp_path, window(0, days=5), window(1, start=MONDAY + 5 * DAY, days=2))["verdict"] == UNSURE


def test_a_thousand_rows_of_one_user_are_one_users_evidence(tmp_path):
    now = window(1)
    loud = now.iloc[:1].assign(n0=50.0)
    import pandas as pd

    assert judged(tmp_path, window(0), pd.concat([now, *[loud] * 1000]))["verdict"] == NONE


def test_a_window_is_cut_by_its_bounds_and_all_its_rows_are_counted(tmp_path):
    frame = window(0, days=14)
    part = draw(written(frame, tmp_path / "t.parquet"), since="2024-03-25T00:00:00+00:00", until="2024-03-27T00:00:00+00:00")
    inside = frame[(frame["timestamp"] >= "2024-03-25") & (frame["timestamp"] < "2024-03-27")]
    assert part.rows == len(inside)
    assert len(part.sample) == inside["user_id"].nunique()
    assert set(part.sample["timestamp"].dt.day) == {25, 26}


def test_a_sample_is_bounded_and_the_same_each_time(tmp_path):
    table = written(window(0), tmp_path / "t.parquet")
    first, again = draw(table, most=500), draw(table, most=500)
    assert len(first.sample) == 500
    assert first.sample["user_id"].is_unique
    assert first.sample["n0"].tolist() == again.sample["n0"].tolist()


def test_clicks_are_counted_by_bundle(tmp_path):
    frame = window(0, users=50).assign(bundle=["a"] * 60 + ["b"] * 40, clicked=[1] * 15 + [0] * 45 + [1] * 30 + [0] * 10)
    found = clicked_by_bundle(frame)
    assert (found["a"]["ctr"], found["b"]["ctr"]) == (0.25, 0.75)
    assert found["a"]["error"] == pytest.approx(np.sqrt(0.25 * 0.75 / 60))


def test_alpha_is_what_the_verdict_says(tmp_path):
    assert judged(tmp_path, window(0, users=100), window(1, users=100))["alpha"] == ALPHA


def test_times_keep_their_zone_whatever_wrote_the_table(tmp_path):
    assert str(draw(written(window(0, users=40), tmp_path / "t.parquet")).sample["timestamp"].dt.tz) == "UTC"
