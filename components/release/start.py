"""What a daily training goes on from: the weights of the champion, or of the bundle judged in its place, from the registry.

The judged one: a bundle learnt again from all rows has seen the days that the next candidate is judged on.
"""

import shutil
from pathlib import Path

from components.release.fetch import bring, users_fault
from components.release.registry import CHAMPION, address, digest_in, exists, holder, model_name, open_registry, version_of
from components.release.releases import weights_of
from components.release.rival import judged_version
from components.start import known_mode
from serving.system import System


class NothingToStartFrom(ValueError):
    """A daily training goes on from a champion, and there is none that could be gone on from."""


def start(system: System, out: Path, mode: str, home: str = "", tracking: str = "", judged: str = "") -> None:
    """Put the weights at `out/<digest>/`; for the mode "full" leave `out` empty. `judged`: digest of another bundle than the champion's.

    Raises `NothingToStartFrom`, `components.release.fetch.NotFetched` when they are nowhere to be had.
    """
    out.mkdir(parents=True, exist_ok=True)
    if known_mode(mode) == "full":
        return
    where, first = Path(home) if home else None, f"run `shortlist train {system.name}` with --mode full first"
    if not exists(where, tracking):
        raise NothingToStartFrom(f"nothing of {system.name} is registered: {first}")
    with open_registry(where, tracking) as client:
        name = model_name(system)
        found = version_of(client, name, judged) if judged else holder(client, name, CHAMPION)
        if found is None:
            raise NothingToStartFrom(f"{name} has no {f'version of bundle {judged}' if judged else 'champion'} to go on from: {first}")
        version = found if judged else judged_version(client, found)
        digest, known = digest_in(version), str(version.tags.get("weights", ""))
        if not known:
            raise NothingToStartFrom(f"version {version.version} of {name} was registered without what learning goes on from: {first}")
        kept = weights_of(digest, where) if where else None
        if kept and not users_fault(kept, known):
            shutil.copytree(kept, out / digest)
            return
        source = f"{str(version.source).rpartition('/')[0]}/weights"
        bring(source, out / digest, address(where, tracking), lambda folder: users_fault(folder, known), "they are not there")
