"""Cleaning keeps what answers and what the last runs need, and waits for nobody."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.home import HomeInUse, occupied, one_training
from components.release import releases
from pipelines.clean import clean
from pipelines.watch import BEGUN, SETTLED, WatchJournal

KEYS = {name: f"{at:024x}" for at, name in enumerate(("old", "shared", "new", "accepted", "killed"))}


def folder(path: Path, size: int = 1000) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_bytes(bytes(size))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two runs that share a step, a release of a third, a killed step, and the tables accepted last."""
    for name, key in KEYS.items():
        folder(tmp_path / "steps" / "validate" / (f"{key}.partial" if name == "killed" else key))
        (tmp_path / "steps" / "validate" / f"{key}.lock").touch()
    for run, keys, bundle in (("20260101-training", ("old", "shared"), "b1"), ("20260102-training", ("shared", "new"), "b2")):
        folder(tmp_path / "runs" / run / "pack" / "out" / bundle, 0)
        for at, key in enumerate(keys):
            record = {"step": "validate", "key": KEYS[key]}
            (tmp_path / "runs" / run / f"{at}.record.json").write_text(json.dumps(record))
    for bundle in ("b1", "b2", "b3", "b4"):
        folder(tmp_path / "bundles" / bundle)
        folder(tmp_path / "users" / bundle)
    folder(tmp_path / "bundles" / ".b9.123")  # a fetch that was killed
    releases.choose("shop", "b3", tmp_path)
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "shop.json").write_text(json.dumps({"accepted": f"steps/validate/{KEYS['accepted']}/out"}))
    return tmp_path


def names(path: Path) -> set[str]:
    return {found.name for found in path.iterdir() if found.is_dir()}


def test_what_answers_the_last_run_and_the_accepted_tables_stay(home: Path) -> None:
    records = sum(file.stat().st_size for file in (home / "runs" / "20260101-training").glob("*.json"))
    done = clean(home, keep=1)
    assert names(home / "runs") == {"20260102-training"}
    assert names(home / "steps" / "validate") == {KEYS["shared"], KEYS["new"], KEYS["accepted"]}
    assert not (home / "steps" / "validate" / f"{KEYS['old']}.lock").exists()
    assert names(home / "bundles") == names(home / "users") == {"b2", "b3"}
    assert done.folders == 1 + 2 + 2 * 2 + 1  # a run, two steps, two bundles with users, what a killed fetch left
    assert done.freed_bytes == 1000 * 7 + records
    assert clean(home, keep=1).folders == 0


def test_bytes_another_folder_still_holds_are_not_counted_as_freed(home: Path) -> None:
    file = home / "bundles" / "b4" / "file"
    os.link(file, home / "bundles" / "b3" / "linked")
    assert clean(home, keep=2).freed_bytes == 1000 * 3  # b4's users, the killed step, the killed fetch


def test_what_ended_retrainings_learnt_from_goes_and_what_an_open_one_needs_stays(home: Path) -> None:
    watch, at = home / "watch" / "shop", datetime(2026, 1, 1, tzinfo=UTC)
    ended, never_begun, open_still = "20260101T000000000000", "20260102T000000000000", "20260103T000000000000"
    for name in (ended, never_begun, open_still, "latest"):
        folder(watch / name / "served")
    journal = WatchJournal(watch / "journal.jsonl")
    for what, cycle in ((BEGUN, ended), (SETTLED, ended), (BEGUN, open_still)):
        journal.add(what, cycle, at)
    clean(home, keep=2)
    assert names(watch) == {open_still, "latest"}
    journal.add(SETTLED, open_still, at)
    clean(home, keep=2)
    assert names(watch) == {"latest"}


def test_nothing_is_taken_away_while_a_run_is_at_work(home: Path) -> None:
    with occupied(home), occupied(home), pytest.raises(HomeInUse, match="a run or a fetch is at work under"):
        clean(home, keep=0)
    assert len(names(home / "runs")) == 2


def test_scheduled_trainings_come_one_at_a_time(home: Path) -> None:
    with one_training(home, "shop"):
        with (
            pytest.raises(HomeInUse, match="another training of shop is at work"),
            one_training(home, "shop"),
        ):
            pytest.fail("two at a time")
        with one_training(home, "other"):
            pass
    with one_training(home, "shop"):
        pass
