"""What is gathered and poured reads as if each observation had been made on its own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from serving.telemetry.metrics import BufferedCounter, BufferedHistogram

BOUNDS = (-0.5, 0.001, 0.5, 2.0)
VALUES = st.floats(-4, 4).map(lambda value: round(value * 8) / 8) | st.sampled_from((*BOUNDS, 1e9))  # sums are exact in any order


@given(st.lists(st.lists(VALUES)))
def test_a_poured_tally_is_the_histogram_of_its_observations(parts: list[list[float]]) -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    plain = Histogram("seconds", "", ["bundle"], buckets=BOUNDS, registry=one).labels("b")
    tally = BufferedHistogram(Histogram("seconds", "", ["bundle"], buckets=BOUNDS, registry=other).labels("b"))
    for values in parts:
        for value in values:
            plain.observe(value)
            tally.observe(value)
        tally.flush()
    tally.flush()
    assert _text(other) == _text(one)


def test_a_count_is_poured_once() -> None:
    registry = CollectorRegistry()
    count = BufferedCounter(Counter("lists", "", registry=registry))
    count.inc()
    count.inc(4)
    count.flush()
    count.flush()
    assert "lists_total 5.0" in _text(registry)


def _text(registry: CollectorRegistry) -> str:
    return "\n".join(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)
