"""A baseline belongs to a source; who failed leaves none; the same tables again are compared with nothing."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.data.accepted import baseline, remember


@pytest.fixture
def accepted(tmp_path):
    """Remember, under a home, a run of the tables in a folder of the given name."""
    home = tmp_path / "home"

    def run(name, key):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "events.parquet").write_text(key)
        (home / "steps" / "validate" / key / "out").mkdir(parents=True)
        out = tmp_path / f"run-{key}" / "out"
        out.mkdir(parents=True)
        out.with_name("out.record.json").write_text(json.dumps({"key": key}))
        remember("shop", str(home), str(folder), folder, out)
        return folder

    return home, run


def test_another_source_is_compared_with_nothing(accepted, tmp_path):
    home, run = accepted
    first = run("first", "one")
    other = tmp_path / "other"
    other.mkdir()
    (other / "events.parquet").write_text("x")
    assert baseline("shop", str(home), str(other), str(other)) is None
    assert baseline("shop", str(home), "", str(other)) is None  # the system's own ingest is a source as well
    found = baseline("shop", str(home), str(first), str(other))
    assert found.folder == home / "steps" / "validate" / "one" / "out"
    assert found.described.startswith(f"those of {first} accepted on 20")
    assert found.described.endswith(" UTC")


def test_each_source_keeps_its_own_and_the_newest_of_it(accepted, tmp_path):
    home, run = accepted
    first, second = run("first", "one"), run("second", "two")
    assert baseline("shop", str(home), str(first), str(second)).folder.parent.name == "one"
    run("first", "three")
    assert baseline("shop", str(home), str(first), str(second)).folder.parent.name == "three"
    assert baseline("shop", str(home), str(second), str(first)).folder.parent.name == "two"


def test_the_same_tables_again_are_compared_with_nothing(accepted):
    home, run = accepted
    first = run("first", "one")
    assert baseline("shop", str(home), str(first), str(first)) is None


def test_without_a_home_or_a_run_that_ended_well_there_is_none(tmp_path):
    assert baseline("shop", "", "", str(tmp_path)) is None
    assert baseline("shop", str(tmp_path), "", str(tmp_path)) is None


def test_runs_that_end_at_once_leave_a_baseline_each(accepted, tmp_path):
    home, run = accepted
    names = [f"shop {number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda name: run(name, name.replace(" ", "")), names))
    found = [baseline("shop", str(home), str(folder), str(folders[at - 1])) for at, folder in enumerate(folders)]
    assert [one.folder.parent.name for one in found] == [name.replace(" ", "") for name in names]
