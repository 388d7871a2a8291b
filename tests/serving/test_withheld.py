"""What excuses a late answer in the faults' matrix: processors that were withheld, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.serving.deployment import waited_ms
from tests.serving.faults import BUDGET_MS, Outcome, _excused, _summed

SPINS = "import time\nwhile True: time.process_time()"


@pytest.fixture
def spinning() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that want one and the same processor."""
    core = min(os.sched_getaffinity(0))
    made = [subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", SPINS]) for _ in range(2)]
    yield made
    for process in made:
        process.kill()
        process.wait(10)


def test_who_shares_a_processor_waits_and_who_sleeps_does_not(spinning: list[subprocess.Popen[bytes]]) -> None:
    from tests.serving.servers import until

    until(lambda: all(waited_ms(process.pid) > 200 for process in spinning), 60)
    with subprocess.Popen(["sleep", "60"]) as asleep:
        until(lambda: waited_ms(spinning[0].pid) > 500, 60)
        assert waited_ms(asleep.pid) < waited_ms(spinning[0].pid) / 2
        asleep.kill()
    assert waited_ms(asleep.pid) == 0  # ended


def test_answers_that_are_late_without_a_reason_are_a_problem_whatever_the_machine_did_a_little() -> None:
    late = [BUDGET_MS + 400.0] * 20 + [BUDGET_MS / 2] * 40
    for withheld, problems in ((0.0, 1), (100.0, 1), (1000.0, 0)):  # excused: 0, 350, 26,000 ms of 6,000
        outcome = Outcome((), "redis", "split", sent=60, withheld_ms=withheld)
        outcome.events[200] = 1
        _summed(outcome, late, (), 1.0)
        assert len(outcome.problems) == problems, outcome.problems
        assert _excused(outcome) == withheld * (1 + withheld / 40)
