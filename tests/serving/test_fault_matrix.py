"""Every fault alone, every pair where time allows (`make faults`), on real servers under load: see `tests/serving/faults.py`.

Each answer is a full list that keeps the rules, inside its budget, its rung named; the full rung comes back within ten seconds; every
acknowledged event is in the log once.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.deployment import Deployment
from tests.serving.faults import FAULTS, Fault, cases, lost_events, run_case

QUICK_SECONDS = 1.5
WITH_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed: apt-get install redis-server")
NEEDS_GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="the wall clock is shifted by a library compiled here: install gcc")
pytestmark = [WITH_REDIS, NEEDS_GCC]
ON_SQLITE = FAULTS["SQLite gone"]


@pytest.fixture(scope="module")
def redis_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("redis"), "redis") as made:
        yield made
    assert lost_events(made) == []


@pytest.fixture(scope="module")
def sqlite_deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("sqlite"), "sqlite") as made:
        yield made
    assert lost_events(made) == []


def named(case: tuple[Fault, ...]) -> str:
    return " + ".join(fault.name for fault in case)


@pytest.mark.parametrize("case", cases("redis", 1), ids=named)
def test_every_answer_is_whole_while_one_thing_fails(redis_deployment: Deployment, case: tuple[Fault, ...]) -> None:
    assert run_case(redis_deployment, case, QUICK_SECONDS).problems == []


def test_every_answer_is_whole_while_the_embedded_states_are_damaged(tmp_path: Path) -> None:
    with Deployment(tmp_path, "sqlite") as deployment:
        assert run_case(deployment, (ON_SQLITE,), QUICK_SECONDS).problems == []
    assert lost_events(deployment) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("redis", 2), ids=named)
def test_every_answer_is_whole_while_two_things_fail(redis_deployment: Deployment, case: tuple[Fault, ...]) -> None:
    assert run_case(redis_deployment, case).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in cases("sqlite", 2) if ON_SQLITE in case], ids=named)
def test_every_answer_is_whole_while_the_states_and_another_thing_fail(sqlite_deployment: Deployment, case: tuple[Fault, ...]) -> None:
    assert run_case(sqlite_deployment, case).problems == []
