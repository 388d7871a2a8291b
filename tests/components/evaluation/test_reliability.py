"""Expected beside observed: by hand, and of the trained world."""

import numpy as np
import pytest

from components.evaluation.reliability import reliability, table
from components.evaluation.truth import read_truth


def test_a_table_of_what_was_expected_and_what_came():
    told = table(np.array([0.02, 0.02, 0.2, 0.2, 2.0]), np.array([0, 0, 1, 0, 3.0]))
    assert told["bins"] == [
        {"from": 0.01, "expected": 0.02, "observed": 0.0, "count": 2},
        {"from": 0.1, "expected": 0.2, "observed": 0.5, "count": 2},
        {"from": 1.0, "expected": 2.0, "observed": 3.0, "count": 1},
    ]
    assert (told["count"], told["expected"], told["observed"]) == (5, 0.488, 0.8)
    assert told["calibration_error"] == pytest.approx((2 * 0.02 + 2 * 0.3 + 1.0) / 5)
    assert table(np.empty(0), np.empty(0))["calibration_error"] == 0


def test_the_worlds_heads_say_about_what_comes(trained):
    told = reliability(trained.system, trained.bundle, read_truth(trained.features))
    assert list(told) == ["repeat", "discover"]
    for one in told.values():
        assert one["count"] == sum(place["count"] for place in one["bins"]) > 100
        assert one["calibration_error"] < 0.1
        assert one["expected"] == pytest.approx(one["observed"], rel=0.5)
    assert told["repeat"]["condition"] == "candidates had before, of users of whom anything came"
