"""The gate: a change may not make a request dearer. By CPU and by the ratio to the naive build of the same run, never by wall time.

Judged by what `gate.json` recorded: a request, in calibration loops, may take `margin` times that, and the ratio may fall to that part of
it. The margin is wide, because neighbours and another processor's caches move these figures by tens of per cent; what the design asks of
them is judged by `make bench`.
"""

import pytest

from tests.bench.gate import figures, path, recorded

pytestmark = pytest.mark.cost


def test_a_request_costs_no_more_than_recorded_and_the_naive_build_as_many_times_that() -> None:
    limits, found = recorded(), figures()
    before = limits["recorded"].get(path())
    assert before is not None, f"nothing is recorded for the {path()} path: run python -m tests.bench.gate --record"
    assert found["in_loops"] <= limits["margin"] * before["in_loops"], (found, before)
    assert found["ratio"] >= before["ratio"] / limits["margin"], (found, before)
