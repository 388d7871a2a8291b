"""Why a run was begun, as a tag of what it registered: a person who promotes sees which drift it answers."""

import json
from pathlib import Path

from components.release.register import open_registry

_LONGEST = 500  # characters of a tag


def note_cause(cause: str, registered: str, home: str, tracking: str) -> None:
    """Tag the run that the register step recorded in its folder; without a cause, nothing."""
    if not cause:
        return
    run = json.loads(Path(registered, "version.json").read_text())["run"]
    with open_registry(Path(home) if home else None, tracking) as client:
        client.set_tag(run, "cause", cause[:_LONGEST])
