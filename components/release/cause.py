"""Why a run was begun, as a tag of what it registered: a person who promotes sees which drift it answers."""

import json
from pathlib import Path

from components.release.register import open_registry

_LONGEST = 500  # characters of a tag


def note_cause(cause: str, registered: str, home: str, tracking: str) -> None:
    """Tag the run that the register step recorded in its folder, and its version where there is one; without a cause, nothing."""
    if not cause:
        return
    made = json.loads(Path(registered, "version.json").read_text())
    with open_registry(Path(home) if home else None, tracking) as client:
        client.set_tag(made["run"], "cause", cause[:_LONGEST])
        if made["version"]:
            client.set_model_version_tag(made["name"], made["version"], "cause", cause[:_LONGEST])
