"""The watch retrains once for one drift, however rudely it is interrupted; it waits, stops and goes on as its policy says."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.release.registry import RegistryUnavailable
from pipelines.retraining import said
from pipelines.watch import Policy, RetrainingRefused, Steps, WatchBusy, WatchJournal, WatchStopped, resume, watch_once

ROOT = Path(__file__).parent.parent.parent
NOON = datetime(2024, 3, 25, 12, tzinfo=UTC)
ARROWS = ("verdict", "prepare", "prepared", "train", "trained", "promote", "promoted")

PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from pipelines.watch import Policy, Steps, watch_once

folder, kill_at = Path(sys.argv[1]), sys.argv[2]

def arrow(name):
    if name == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def prepare(cycle, found):
    arrow("prepare")
    (folder / "copies").mkdir(exist_ok=True)
    (folder / "copies" / cycle).write_text("events")
    arrow("prepared")
    return {"copy": str(folder / "copies" / cycle)}

def train(arguments):
    arrow("train")
    Path(arguments["copy"]).read_text()
    done = folder / "bundles"
    done.mkdir(exist_ok=True)
    (done / Path(arguments["copy"]).name).write_text(arguments["cause"])  # the same arguments, the same bundle
    arrow("trained")
    return {"bundle": Path(arguments["copy"]).name, "passed": True}

def promote(trained):
    arrow("promote")
    (folder / "champion").write_text(trained["bundle"])
    arrow("promoted")
    return True

def verdict():
    arrow("verdict")
    cured = (folder / "champion").exists()
    return {"verdict": "none" if cured else "drift", "sentence": "tastes jumped", "causes": []}

entry = watch_once(Steps(verdict, prepare, train, promote, print), Policy(), folder / "watch")
print(json.dumps(entry))
"""


def program(folder: Path, kill_at: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PROGRAM, str(folder), kill_at], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kill_at", ARROWS)
def test_killed_at_any_arrow_one_retraining_is_made_and_none_is_lost(tmp_path: Path, kill_at: str) -> None:
    assert program(tmp_path, kill_at).returncode == -signal.SIGKILL
    again = program(tmp_path)
    assert again.returncode == 0, again.stderr
    entries = WatchJournal(tmp_path / "watch" / "journal.jsonl").entries
    assert [entry["what"] for entry in entries if entry["what"] in ("begun", "settled")] == ["begun", "settled"]
    bundles = [path.name for path in (tmp_path / "bundles").iterdir()]
    assert bundles == [(tmp_path / "champion").read_text()] == [entries[-1]["bundle"]]
    quiet = json.loads(program(tmp_path).stdout)
    assert (quiet["what"], quiet["verdict"]) == ("verdict", "none")


class World:
    """Steps in this process: what they were asked, a clock that is set, verdicts that are given."""

    def __init__(self, *verdicts: str, passed: bool = True) -> None:
        self.verdicts, self.passed, self.at = list(verdicts), passed, NOON
        self.trained: list[dict] = []
        self.promoted: list[str] = []
        self.alerts: list[str] = []

    def steps(self) -> Steps:
        return Steps(
            lambda: {"verdict": self.verdicts.pop(0), "sentence": "tastes jumped", "causes": []},
            lambda cycle, found: {"cycle": cycle},
            self._train,
            lambda trained: self.promoted.append(trained["bundle"]) or True,
            self.alerts.append,
            lambda: self.at,
        )

    def _train(self, arguments: dict) -> dict:
        self.trained.append(arguments)
        return {"bundle": f"bundle {len(self.trained)}", "passed": self.passed}


def test_the_cause_is_an_argument_of_the_retraining(tmp_path: Path) -> None:
    world = World("drift")
    assert watch_once(world.steps(), Policy(), tmp_path)["promoted"]
    assert world.trained[0]["cause"] == "tastes jumped"


def test_a_bundle_the_gate_refused_is_not_promoted(tmp_path: Path) -> None:
    world = World("drift", passed=False)
    settled = watch_once(world.steps(), Policy(), tmp_path)
    assert (settled["passed"], settled["promoted"], world.promoted) == (False, False, [])


def test_a_retraining_that_the_data_refuse_ends_its_cycle_and_one_that_may_do_another_day_stays_open(tmp_path: Path) -> None:
    world, problems = World("drift", "none"), [RegistryUnavailable("down"), RetrainingRefused("one user cannot be judged")]

    def refuse(arguments: dict) -> dict:
        raise problems.pop(0)

    steps = replace(world.steps(), train=refuse)
    with pytest.raises(RegistryUnavailable):
        watch_once(steps, Policy(), tmp_path)
    settled = watch_once(steps, Policy(), tmp_path)  # the same cycle: no other verdict was asked for
    assert (settled["bundle"], settled["passed"], world.promoted) == ("", False, [])
    assert said(settled) == "Could not retrain: one user cannot be judged"
    assert watch_once(steps, Policy(), tmp_path)["verdict"] == "none"


@pytest.mark.parametrize("word", ["none", "cannot judge"])
def test_nothing_is_trained_without_drift(tmp_path: Path, word: str) -> None:
    world = World(word)
    assert watch_once(world.steps(), Policy(), tmp_path)["verdict"] == word
    assert world.trained == []


def test_drift_within_the_cooldown_waits_and_says_so(tmp_path: Path) -> None:
    world = World("drift", "drift", "drift")
    watch_once(world.steps(), Policy(), tmp_path)
    world.at += timedelta(hours=23)
    assert "the cooldown is 1 day" in watch_once(world.steps(), Policy(), tmp_path)["waits"]
    world.at += timedelta(hours=2)
    assert watch_once(world.steps(), Policy(), tmp_path)["what"] == "settled"
    assert len(world.trained) == 2


def test_no_more_than_so_many_a_week(tmp_path: Path) -> None:
    world, policy = World(*["drift", "none"] * 3), Policy(most_a_week=2)
    found = []
    for _ in range(3):
        found.append(watch_once(world.steps(), policy, tmp_path))
        watch_once(world.steps(), policy, tmp_path)
        world.at += timedelta(days=2)
    assert [entry["what"] for entry in found] == ["settled", "settled", "verdict"]
    assert found[2]["waits"] == "2 retrainings within a week, at most 2"


def test_two_retrainings_that_cure_nothing_stop_the_watch_with_an_alert_until_a_person_has_looked(tmp_path: Path) -> None:
    world = World(*["drift"] * 4)
    for _ in range(2):
        watch_once(world.steps(), Policy(), tmp_path)
        world.at += timedelta(days=3)
    with pytest.raises(WatchStopped, match="2 retrainings in a row did not cure the drift"):
        watch_once(world.steps(), Policy(), tmp_path)
    assert len(world.alerts) == 1
    with pytest.raises(WatchStopped, match="--resume"):
        watch_once(world.steps(), Policy(), tmp_path)
    assert len(world.trained) == 2
    resume(tmp_path)
    assert watch_once(world.steps(), Policy(), tmp_path)["what"] == "settled"


def test_a_quiet_verdict_between_two_retrainings_is_a_cure(tmp_path: Path) -> None:
    world = World("drift", "none", "drift", "none", "drift")
    for _ in range(5):
        watch_once(world.steps(), Policy(), tmp_path)
        world.at += timedelta(days=3)
    assert len(world.trained) == 3
    assert world.alerts == []


def test_one_watcher_at_a_time(tmp_path: Path) -> None:
    world = World("drift")

    def inner(arguments: dict) -> dict:
        with pytest.raises(WatchBusy, match="one at a time"):
            watch_once(world.steps(), Policy(), tmp_path)
        return {"bundle": "b", "passed": True}

    steps = world.steps()
    watch_once(Steps(steps.verdict, steps.prepare, inner, steps.promote, steps.alert, steps.now), Policy(), tmp_path)


def test_a_line_cut_short_by_a_crash_is_taken_off(tmp_path: Path) -> None:
    journal = WatchJournal(tmp_path / "journal.jsonl")
    journal.add("verdict", "c", NOON, verdict="none")
    with journal.path.open("ab") as file:
        file.write(b'{"what": "beg')
        os.fsync(file.fileno())
    again = WatchJournal(tmp_path / "journal.jsonl")
    assert [entry["what"] for entry in again.entries] == ["verdict"]
    again.add("begun", "d", NOON)
    assert [entry["what"] for entry in WatchJournal(tmp_path / "journal.jsonl").entries] == ["verdict", "begun"]
