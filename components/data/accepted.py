"""The tables accepted last, which the next ones are compared with: a table that lost half its rows overnight is not learnt from."""

import json
from pathlib import Path

from components.step import digest_of
from serving.system import load_system


def last_accepted(system: str, home: str, tables: str) -> Path | None:
    """The accepted output to compare `tables` with; None at first, and when these very tables were the ones accepted."""
    note = _note(system, home)
    if note is None or not note.is_file():
        return None
    kept = json.loads(note.read_text())
    folder = Path(home) / kept["accepted"]
    return folder if kept["tables"] != digest_of(Path(tables)) and folder.is_dir() else None


def remember(system: str, home: str, tables: str, accepted: str) -> None:
    """Note these tables as the ones accepted last."""
    note = _note(system, home)
    if note is None:
        return
    key = json.loads(Path(f"{accepted}.record.json").read_text())["key"]
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(".new")
    fresh.write_text(json.dumps({"tables": digest_of(Path(tables)), "accepted": f"steps/validate/{key}/out"}))
    fresh.replace(note)


def _note(system: str, home: str) -> Path | None:
    return Path(home) / "accepted" / f"{load_system(system).name}.json" if home else None
