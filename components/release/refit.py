"""A bundle learnt again from all rows takes the place of the one that was judged: same settings and seed, the judged week included.

Its accuracy cannot be judged: it has seen the week. It goes through the half of the gate that needs no truth
(`components/evaluation/sanity.py`), and its version points at the judged one, which is what later candidates are compared with.
"""

import json
from pathlib import Path
from typing import Any

from components.release import releases as shelf
from components.release.making import Making
from components.release.register import new_version
from components.release.registry import CHAMPION, UnknownBundle, model_name, open_registry, version_of
from components.release.succession import note
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
    if where:
        shelf.put(bundle, users, where)
    with open_registry(where, tracking, alone=True) as client:
        twin = version_of(client, name, judged)
        if twin is None:
            raise UnknownBundle(f"{name} has no version of bundle {judged}: a bundle is learnt again only after its twin passed the gate")
        found = version_of(client, name, bundle.name)
        if found is None:
            making = Making.again(bundle, twin.tags)
            found = new_version(client, system, making, str(twin.run_id), bundle, users, judged, f"again/{bundle.name[:12]}/")
        for alias in client.get_model_version(name, twin.version).aliases:
            client.set_registered_model_alias(name, alias, found.version)
            if alias == CHAMPION:
                note(client, found)
        aliases = sorted(client.get_model_version(name, found.version).aliases)
        if where and CHAMPION in aliases:
            shelf.choose(system.name, bundle.name, where)
    record = {"name": name, "version": str(found.version), "aliases": aliases, "bundle": bundle.name, "run": twin.run_id, "judged": judged}
    out.mkdir(parents=True, exist_ok=True)
    (out / "version.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record
