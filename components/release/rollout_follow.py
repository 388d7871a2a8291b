"""Beside a recommender: what the InferenceServices say, as the release file the recommender follows. The bundles are fetched and proven.

shortlist rollout follow shop --into /releases
"""

from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from components.release.releases import ReleasedBundle
from components.release.rollout import Cluster, Refused
from components.release.services import ROLES, Standing, address
from components.release.shelf import Shelf
from serving.worker.release import BesideRelease, Release, write_release


@dataclass
class Follower:
    """One recommender's."""

    cluster: Cluster
    shelf: Shelf
    system: str
    namespace: str
    into: Path
    _written: Release | None = None
    _refused: set[str] = field(default_factory=set)
    _proven: dict[str, ReleasedBundle] = field(default_factory=dict)  # by digest, in this process

    @property
    def file(self) -> Path:
        return self.into / "release.json"

    def step(self) -> str:
        """Make the file like the services; a sentence where it changed. Raises `Unreachable`, `Refused`: the file then stays as it was."""
        stands = {role: self.cluster.standing(role) for role in ROLES}
        wanted = self._release(stands)
        if wanted is None or wanted == self._written:
            return ""
        write_release(self.file, wanted)
        self._written = wanted
        self._let_go(wanted)
        beside = f", {wanted.beside.digest[7:19]} {wanted.beside.percent} % of the users" if wanted.beside else ""
        return f"bundle {wanted.digest[7:19]} answers{beside}"

    def _release(self, stands: dict[str, Standing]) -> Release | None:
        """None where the two services do not agree yet on who is stable: what was told last holds."""
        first, second = (stands[role] for role in ROLES)
        if first.stable is None or second.stable is None or first.stable.bundle.digest != second.stable.bundle.digest:
            return None
        digest = first.stable.bundle.digest
        found = self._fetched(digest)
        asked = {role: address(self.system, role, digest, self.namespace) for role in ROLES}
        return Release(str(found.bundle), str(found.users), f"sha256:{digest}", **asked, beside=self._beside(first, second))

    def _fetched(self, digest: str) -> ReleasedBundle:
        """Hashed once, and not every second."""
        if digest not in self._proven:
            self._proven[digest] = self.shelf.fetch(digest, self.into)
        return self._proven[digest]

    def _beside(self, first: Standing, second: Standing) -> BesideRelease | None:
        """The bundle beside, at its share where both services give it the same and have its pods; at none else."""
        others = [(one, two) for one in first.beside for two in second.beside if one.bundle.digest == two.bundle.digest]
        if not others or others[0][0].bundle.digest in self._refused:
            return None
        one, two = others[0]
        digest = one.bundle.digest
        try:
            found = self._fetched(digest)
        except Refused:
            self._refused.add(digest)  # the controller says why; here the stable bundle answers all
            return None
        percent = one.percent if one.percent == two.percent and one.ready and two.ready else 0
        asked = {role: address(self.system, role, digest, self.namespace) for role in ROLES}
        return BesideRelease(str(found.bundle), str(found.users), f"sha256:{digest}", **asked, percent=percent, salt=one.bundle.rollout)

    def _let_go(self, wanted: Release) -> None:
        """Bundles that neither this release nor a worker that is still draining needs: all but those named now."""
        kept = {wanted.digest[7:], wanted.beside.digest[7:] if wanted.beside else ""}
        self._proven = {digest: found for digest, found in self._proven.items() if digest in kept}
        for shelf in ("bundles", "users"):
            for folder in (self.into / shelf).iterdir():
                if folder.name not in kept and not folder.name.startswith("."):
                    rmtree(folder, ignore_errors=True)
