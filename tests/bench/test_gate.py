"""The gate: a change may not make a request dearer. By CPU and by the ratio to the naive build of the same run, never by wall time.

Limits are generous, because neighbours and another processor's caches move these figures by tens of per cent: the ratio must reach what
`gate.json` asks (the design asks 3), and a request, in calibration loops, at most `margin` times what was recorded there.
"""

from tests.bench.gate import figures, path, recorded


def test_a_request_costs_no_more_than_recorded_and_the_naive_build_several_times_that() -> None:
    limits, found = recorded(), figures()
    assert found["ratio"] >= limits["ratio_at_least"][path()], found
    before = limits["recorded"].get(path())
    assert before is None or found["in_loops"] <= limits["margin"] * before["in_loops"], (found, before)
