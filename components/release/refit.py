"""A bundle learnt again from all rows takes the place of the one that was judged: same settings and seed, the judged week included.

Its accuracy cannot be judged: it has seen the week. It goes through the half of the gate that needs no truth
(`components/evaluation/sanity.py`), and its version points at the judged one, which is what later candidates are compared with.
"""

import json
from pathlib import Path
from typing import Any

from components.release import releases as shelf
from components.release.register import UnknownBundle, model_name, new_version, open_registry, version_of
from serving.system import System


class RefitRefused(ValueError):
    """The bundle learnt from all rows does not answer as its judged twin; the twin stays."""


def adopt(
    system: System, bundle: Path, users: Path, gate: Path, out: Path, judged: str, home: str = "", tracking: str = ""
) -> dict[str, Any]:
    """Register `bundle` under the judgement of the bundle with digest `judged` and move that one's aliases to it.

    `gate`: the sanity step's folder. Writes `out/version.json` and returns it. Raises `UnknownBundle` when the registry has no version of
    the judged bundle, `RefitRefused` when the sanity check said no.
    """
    verdict = json.loads((gate / "gate.json").read_text())
    if not verdict["passed"]:
        raise RefitRefused(f"the bundle learnt again from all rows is not adopted: {verdict['sentence']} The judged bundle {judged} stays")
    where = Path(home) if home else None
    name = model_name(system)
    with open_registry(where, tracking) as client:
        twin = version_of(client, name, judged)
        if twin is None:
            raise UnknownBundle(f"{name} has no version of bundle {judged}: a bundle is learnt again only after its twin passed the gate")
        kept = shelf.put(bundle, users, where) if where else None
        found = version_of(client, name, bundle.name)
        if found is None:
            found = new_version(client, name, bundle.name, str(twin.run_id), kept.bundle if kept else bundle, judged=judged)
        for alias in client.get_model_version(name, twin.version).aliases:
            client.set_registered_model_alias(name, alias, found.version)
        aliases = sorted(client.get_model_version(name, found.version).aliases)
        if where and "champion" in aliases:
            shelf.choose(system.name, bundle.name, where)
    record = {"name": name, "version": str(found.version), "aliases": aliases, "bundle": bundle.name, "run": twin.run_id, "judged": judged}
    out.mkdir(parents=True, exist_ok=True)
    (out / "version.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record
