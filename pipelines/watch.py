"""`shortlist watch`: verdict, retraining with its cause, gate, promotion by policy; once, or again and again.

What was decided stands in a journal before it is done (`<home>/watch/<system>/journal.jsonl`, a line an arrow, on disk before the next
step), and what a retraining learns from is copied beside it. So a watcher that is killed anywhere goes on where it was: the same
retraining ends in the same bundle (`components/step.py`), and no second one is begun for the same cause.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
CYCLE = re.compile(r"\d{8}T\d{12}")
NONE, DRIFT = "none", "drift"
VERDICT, BEGUN, TRAINED, SETTLED, STOPPED, RESUMED = "verdict", "begun", "trained", "settled", "stopped", "resumed"


class WatchBusy(ValueError):
    """Another watcher of the same system runs under this home."""


class WatchStopped(ValueError):
    """Retraining does not cure the drift: a person has to look."""


class RetrainingRefused(ValueError):
    """The retraining cannot be done with what there is, and asking again would not help: the cycle ends without a bundle."""


@dataclass(frozen=True)
class Policy:
    """When a drift may be answered by a retraining."""

    cooldown: timedelta = timedelta(hours=24)  # since the last retraining ended
    most_a_week: int = 3
    in_vain: int = 2  # retrainings in a row without a quiet verdict after which the watch stops


@dataclass(frozen=True)
class Steps:
    """What a cycle is made of. Each may be called again with the same arguments after a kill, and must then come to the same end."""

    verdict: Callable[[], Entry]  # at least `verdict`, `sentence`, `causes`
    prepare: Callable[[str, Entry], Entry]  # of a cycle's name and verdict: the arguments of its retraining; what it learns from is copied
    train: Callable[[Entry], Entry]  # of those arguments: at least `bundle`, `passed`; or raises `RetrainingRefused`
    promote: Callable[[Entry], bool]  # of what was trained: whether it answers now
    alert: Callable[[str], None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class WatchJournal:
    """Lines that are on disk before anything follows from them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = self._read()

    def _read(self) -> list[Entry]:
        """Every whole line; one cut short by a crash is taken off, since nothing followed from it."""
        if not self.path.is_file():
            return []
        whole, _, torn = self.path.read_bytes().rpartition(b"\n")
        if torn:
            os.truncate(self.path, len(whole) + 1 if whole else 0)
        return [json.loads(line) for line in whole.splitlines() if line]

    def add(self, what: str, cycle: str, at: datetime, **more: Any) -> Entry:
        entry = {"what": what, "cycle": cycle, "at": at.isoformat(), **more}
        with self.path.open("ab") as file:
            file.write(json.dumps(entry, default=float).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)
        return entry

    def last(self, *kinds: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry["what"] in kinds), None)

    def open_cycle(self) -> Entry | None:
        """What began a retraining that has not been settled."""
        begun = self.last(BEGUN)
        settled = any(entry["what"] == SETTLED and begun and entry["cycle"] == begun["cycle"] for entry in self.entries)
        return None if settled else begun

    def in_vain(self) -> int:
        """Retrainings settled since the last quiet verdict, or since a person said to go on."""
        count = 0
        for entry in reversed(self.entries):
            if entry["what"] == RESUMED or (entry["what"] == VERDICT and entry["verdict"] == NONE):
                break
            count += entry["what"] == SETTLED
        return count


def watch_once(steps: Steps, policy: Policy, folder: Path) -> Entry:
    """One cycle, or the rest of one that was cut short; the journal's last entry. Raises `WatchBusy`, `WatchStopped`."""
    with _alone(folder / "lock"):
        journal = WatchJournal(folder / "journal.jsonl")
        begun = journal.open_cycle()
        if begun is None:
            begun = _decided(steps, policy, journal)
            if begun["what"] != BEGUN:
                return begun
        return _carried_out(steps, journal, begun)


def _decided(steps: Steps, policy: Policy, journal: WatchJournal) -> Entry:
    """Ask for the verdict; the entry that begins a retraining, or the verdict's own when there is none to begin."""
    stopped = journal.last(STOPPED, RESUMED)
    if stopped and stopped["what"] == STOPPED:
        raise WatchStopped(f"{stopped['why']} Look into it, then run `shortlist watch` with --resume")
    now = steps.now()
    found = steps.verdict()
    cycle = now.strftime("%Y%m%dT%H%M%S%f")
    waiting = _waits(journal, policy, now) if found["verdict"] == DRIFT else ""
    entry = journal.add(VERDICT, cycle, now, verdict=found["verdict"], sentence=found["sentence"], waits=waiting)
    if found["verdict"] != DRIFT or waiting:
        return entry
    if journal.in_vain() >= policy.in_vain:
        why = f"{policy.in_vain} retrainings in a row did not cure the drift: {found['sentence']}"
        journal.add(STOPPED, cycle, now, why=why)
        steps.alert(why)
        raise WatchStopped(f"{why} Look into it, then run `shortlist watch` with --resume")
    return journal.add(BEGUN, cycle, now, cause=found["sentence"], arguments=steps.prepare(cycle, found))


def _waits(journal: WatchJournal, policy: Policy, now: datetime) -> str:
    """Why a retraining has to wait; empty when it has not."""
    ended = [datetime.fromisoformat(entry["at"]) for entry in journal.entries if entry["what"] == SETTLED]
    if ended and now - ended[-1] < policy.cooldown:
        return f"the last retraining ended {now - ended[-1]} ago, the cooldown is {policy.cooldown}"
    lately = sum(now - at < timedelta(days=7) for at in ended)
    return f"{lately} retrainings within a week, at most {policy.most_a_week}" if lately >= policy.most_a_week else ""


def _carried_out(steps: Steps, journal: WatchJournal, begun: Entry) -> Entry:
    """Train, promote, settle: each unless the journal says that it is done."""
    trained = journal.last(TRAINED)
    if trained is None or trained["cycle"] != begun["cycle"]:
        try:
            made = steps.train(begun["arguments"] | {"cause": begun["cause"]})
        except RetrainingRefused as problem:
            made = {"bundle": "", "passed": False, "gate": str(problem)}
        trained = journal.add(TRAINED, begun["cycle"], steps.now(), **made)
    promoted = bool(trained["passed"]) and steps.promote(trained)
    told = {"bundle": trained["bundle"], "passed": trained["passed"], "gate": trained.get("gate", "")}
    return journal.add(SETTLED, begun["cycle"], steps.now(), **told, promoted=promoted)


def copies_done_with(folder: Path) -> list[Path]:
    """What the ended cycles of a watch learnt from: folders nobody reads again. None while a watcher is at work."""
    try:
        with _alone(folder / "lock"):
            begun = WatchJournal(folder / "journal.jsonl").open_cycle()
    except WatchBusy:
        return []
    return [path for path in sorted(folder.iterdir()) if CYCLE.fullmatch(path.name) and (begun is None or path.name != begun["cycle"])]


def resume(folder: Path) -> None:
    """A person has looked: what was in vain is forgotten, and the watch goes on."""
    with _alone(folder / "lock"):
        WatchJournal(folder / "journal.jsonl").add(RESUMED, "", datetime.now(UTC))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One watcher at a time; the lock goes with its process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WatchBusy(f"another watcher holds {path}: one at a time; wait for it, or end it") from None
        yield
