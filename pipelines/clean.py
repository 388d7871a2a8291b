"""`shortlist clean`: take away what neither a release nor the last runs need. The registry's own copies are left alone.

Kept: the bundles that answer (release files), what the last runs read, made and judged, and the tables accepted last. Anything else can be
made again by a run, or fetched again by `shortlist sync`; what a watch's ended retrainings had learnt from is of no use to anybody.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.home import alone
from pipelines.watch import copies_done_with

STEP = re.compile(r"steps/(\w+)/([0-9a-f]{24})")


@dataclass(frozen=True)
class Cleaned:
    """What was taken away."""

    folders: int
    freed_bytes: int  # of files no other folder holds
    kept_runs: int


@dataclass(frozen=True)
class _Needed:
    runs: frozenset[str]
    steps: frozenset[tuple[str, str]]
    bundles: frozenset[str]


def clean(home: Path, keep: int) -> Cleaned:
    """Keep the last `keep` runs and what answers. Raises `components.home.HomeInUse` while a run is at work."""
    with alone(home):
        needed = _needed(home, keep)
        gone = [*_unneeded(home, needed)]
        freed = sum(_own_bytes(folder) for folder in gone)
        for folder in gone:
            shutil.rmtree(folder)
            folder.with_name(f"{folder.name.removesuffix('.partial')}.lock").unlink(missing_ok=True)
    return Cleaned(len(gone), freed, len(needed.runs))


def _needed(home: Path, keep: int) -> _Needed:
    runs = sorted(path for path in (home / "runs").glob("*") if path.is_dir())[-keep:] if keep else []
    records = [json.loads(file.read_text()) for run in runs for file in run.rglob("*.record.json")]
    steps = {(str(record["step"]), str(record["key"])) for record in records if "key" in record}
    for note in (home / "accepted").rglob("*.json"):
        steps |= set(STEP.findall(note.read_text()))
    bundles = {path.name for run in runs for path in run.glob("*/pack/out/*") if path.is_dir()}
    bundles |= {path.name for run in runs for path in run.glob("pack/out/*") if path.is_dir()}
    for file in (*(home / "champion").glob("[!.]*.json"), *(home / "serving").glob("*/release.json")):
        told = json.loads(file.read_text())
        bundles |= {Path(told.get("bundle", "")).name, str(told.get("digest", "")).removeprefix("sha256:")}
    return _Needed(frozenset(run.name for run in runs), frozenset(steps), frozenset(bundles))


def _unneeded(home: Path, needed: _Needed) -> Iterator[Path]:
    yield from (run for run in (home / "runs").glob("*") if run.is_dir() and run.name not in needed.runs)
    yield from (step for step in (home / "steps").glob("*/*") if step.is_dir() and (step.parent.name, step.name) not in needed.steps)
    for kind in ("bundles", "users", "weights"):
        yield from (folder for folder in (home / kind).glob("*") if folder.is_dir() and folder.name not in needed.bundles)
    for watch in (home / "watch").glob("*"):
        yield from copies_done_with(watch)


def _own_bytes(folder: Path) -> int:
    found = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(stat.st_size for stat in found if stat.st_nlink == 1)
