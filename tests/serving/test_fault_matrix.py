"""Every fault alone, every pair where time allows (`make faults`), on real servers under load: see `tests/serving/faults.py`.

Each answer is a full list that keeps the rules, inside its budget, its rung named; the full rung comes back within ten seconds; every
acknowledged event is in the log once.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.deployment import Deployment
from tests.serving.faults import FAULTS, Fault, cases, long_enough, lost_events, run_case

QUICK_SECONDS = 1.5
WITH_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed: apt-get install redis-server")
NEEDS_GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="the wall clock is shifted by a library compiled here: install gcc")
pytestmark = [WITH_REDIS, NEEDS_GCC]
ON_SQLITE = FAULTS["SQLite gone"]
LATER = {"Redis restarts empty", "Redis gone, front restarted", "exposures' disk full"}  # not in every run of the tests


Case = tuple[Fault, ...]


def deployed(folder: Path, store: str, layout: str) -> Iterator[Deployment]:
    with Deployment(folder, store, layout) as made:
        yield made
        assert made.states_that_differ() == []
    assert lost_events(made) == []


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployed(tmp_path_factory.mktemp("split"), "redis", "split")


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployed(tmp_path_factory.mktemp("fused"), "redis", "fused")


@pytest.fixture(scope="module")
def split_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployed(tmp_path_factory.mktemp("split"), "sqlite", "split")


@pytest.fixture(scope="module")
def fused_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployed(tmp_path_factory.mktemp("fused"), "sqlite", "fused")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployed(tmp_path_factory.mktemp("workers"), "sqlite", "workers")


def named(case: Case) -> str:
    return " + ".join(fault.name for fault in case)


def with_sqlite(layout: str) -> list[Case]:
    """Pairs of which one is the damaged database; the others are the same as with Redis."""
    return [case for case in cases("sqlite", 2, layout) if ON_SQLITE in case]


@pytest.mark.parametrize(
    "case", [pytest.param(one, marks=[pytest.mark.slow] * (named(one) in LATER), id=named(one)) for one in cases("redis", 1)]
)
def test_every_answer_is_whole_while_one_thing_fails(split: Deployment, case: Case) -> None:
    assert run_case(split, case, QUICK_SECONDS).problems == []


def test_every_answer_is_whole_while_the_embedded_states_are_damaged(fused_on_sqlite: Deployment) -> None:
    assert run_case(fused_on_sqlite, (ON_SQLITE,), QUICK_SECONDS).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("sqlite", 1, "workers"), ids=named)
def test_every_answer_is_whole_while_workers_and_bundles_come_and_go(workers: Deployment, case: Case) -> None:
    assert run_case(workers, case, long_enough(case, "workers")).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("redis", 2), ids=named)
def test_every_answer_is_whole_while_two_things_fail(split: Deployment, case: Case) -> None:
    assert run_case(split, case, long_enough(case)).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("case", [*cases("redis", 1, "fused"), *cases("redis", 2, "fused")], ids=named)
def test_a_fused_servers_every_answer_is_whole(fused: Deployment, case: Case) -> None:
    assert run_case(fused, case, long_enough(case)).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("case", with_sqlite("split"), ids=named)
def test_every_answer_is_whole_while_the_states_and_another_thing_fail(split_on_sqlite: Deployment, case: Case) -> None:
    assert run_case(split_on_sqlite, case, long_enough(case)).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("case", with_sqlite("fused"), ids=named)
def test_a_fused_servers_every_answer_is_whole_while_the_states_and_another_thing_fail(fused_on_sqlite: Deployment, case: Case) -> None:
    assert run_case(fused_on_sqlite, case, long_enough(case)).problems == []
