"""What learning costs grows as the log does, not as its square: steps that are ours, on 30, 120 and 480 thousand events of one shop."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

USERS = (500, 2000, 8000)
CPU, MEMORY = (
    1.35,
    1.25,
)  # exponents. Sorts alone give 1.1 here, caches that the first sizes fit in and the third does not another .1, a busy
# machine .1; a step that went by the log to the power of one and a half would be at 1.5, by users x users at 2.


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    command = [sys.executable, "-m", "tests.world.growth", str(tmp_path_factory.mktemp("growth")), *map(str, USERS)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(users): found for users, found in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["features", "sources", "judging"])
def test_time_and_memory_grow_as_the_log_does(costs, step):
    few, some, many = (costs[users][step] for users in USERS)
    time = math.log(many["cpu_s"] / some["cpu_s"], 4)  # from where the steps' constant part no longer hides the rest
    memory = math.log(many["peak_mb"] / few["peak_mb"], 16)
    assert time < CPU, costs
    assert memory < MEMORY, costs
