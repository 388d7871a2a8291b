"""What the watch trains: in a process of its own, and refused where the data do not allow it."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.retraining import _apart, middle_of
from pipelines.watch import RetrainingRefused
from tests.world.plain import END, plain, write


def test_the_cut_halves_the_window_that_drifted() -> None:
    assert middle_of(["2024-03-18T00:00:00+00:00", "2024-03-25T00:00:00+00:00"]) == "2024-03-22T00:00:00+00:00"
    assert middle_of(["2024-03-18T00:00:00+00:00", "2024-03-20T00:00:00+00:00"]) == "2024-03-19T00:00:00+00:00"
    assert middle_of(["2024-03-18T00:00:00+00:00", "2024-03-19T00:00:00+00:00"]) == ""  # the usual cut


def test_what_the_data_do_not_allow_is_refused_in_their_words(tmp_path: Path) -> None:
    """Through the checks of the data, in the process that trains, to the one user who cannot be judged."""
    rows = plain(20)
    rows["events"] = [event for event in rows["events"] if event["timestamp"] < END - timedelta(days=7) or event["user_id"] == "u3"]
    arguments = {"system": "shop", "data": str(write(rows, tmp_path / "data")), "fast": True, "tracking": "", "cause": "tastes jumped"}
    with pytest.raises(RetrainingRefused, match="one user cannot be judged"):
        _apart(arguments, tmp_path / "home")
