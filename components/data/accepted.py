"""The tables accepted last, which the next ones of the same source are compared with.

So a table that lost half its rows overnight is not learnt from. A baseline belongs to a data source (a folder, or a system's own
ingest): another shop under the same home is not held against the first.
Only a run that ended well leaves one.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.home import by_turns
from components.step import digest_of
from serving.system import load_system


@dataclass(frozen=True)
class Baseline:
    """What to compare with: the output of `validate`, and in words whose and from when it is."""

    folder: Path
    described: str


def baseline(system: str, home: str, data: str, tables: str) -> Baseline | None:
    """What to compare `tables` with; None at first, and when these very tables were the ones accepted."""
    note = _note(system, home)
    if note is None or not note.is_file():
        return None
    source = source_of(system, data)
    kept = json.loads(note.read_text()).get("sources", {}).get(source)
    if kept is None or kept["tables"] == digest_of(Path(tables)):
        return None
    folder = Path(home) / kept["accepted"]
    return Baseline(folder, f"those of {source} accepted on {kept['at']}") if folder.is_dir() else None


def remember(system: str, home: str, data: str, tables: Path, accepted: Path) -> None:
    """Note these tables as the ones accepted last, of their source and of the system. `accepted`: a step's output beside its record."""
    note = _note(system, home)
    if note is None:
        return
    key = json.loads(accepted.with_name(f"{accepted.name}.record.json").read_text())["key"]
    entry = {"tables": digest_of(tables), "accepted": f"steps/validate/{key}/out"}
    with by_turns(note.parent, "note"):  # two runs may end at once
        known = json.loads(note.read_text()).get("sources", {}) if note.is_file() else {}
        known[source_of(system, data)] = {**entry, "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
        fresh = note.with_suffix(".new")
        fresh.write_text(json.dumps({**entry, "sources": known}, indent=1))
        fresh.replace(note)


def source_of(system: str, data: str) -> str:
    """The name of where the tables come from: the folder given, or the system's own ingest."""
    return str(Path(data).resolve()) if data else load_system(system).ingest


def _note(system: str, home: str) -> Path | None:
    return Path(home) / "accepted" / f"{load_system(system).name}.json" if home else None
