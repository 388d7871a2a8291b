"""MLflow's aliases as a rollout reads and moves them: `components.release.rollout.Names`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.release.registry import (
    CHALLENGER,
    CHAMPION,
    ForeignVersion,
    RegistryUnavailable,
    UnknownBundle,
    digest_in,
    holder,
    model_name,
    open_registry,
)
from components.release.rollout import Named, Unreachable
from components.release.rollout_state import BundleRef
from components.release.succession import crown
from serving.system import System

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

WHY = "rollout.withdrawn"  # tag of a version: why it was


@dataclass(frozen=True)
class Registry:
    """The system's model in MLflow."""

    system: System
    home: Path
    tracking: str = ""

    @property
    def name(self) -> str:
        return model_name(self.system)

    def named(self) -> Named:
        with self._open() as client:
            return Named(*(self._ref(client, alias) for alias in (CHAMPION, CHALLENGER)))

    def _ref(self, client: "MlflowClient", alias: str) -> BundleRef | None:
        """None where the alias names no bundle of ours: that is nobody to roll out."""
        try:
            found = holder(client, self.name, alias)
        except ForeignVersion:
            return None
        return BundleRef(digest_in(found), str(found.version)) if found is not None else None

    def crown(self, new: BundleRef) -> None:
        with self._open() as client:
            found = holder(client, self.name, CHAMPION)
            if found is None or digest_in(found) != new.digest:
                version = self.version(client, new)
                if version is None:
                    raise UnknownBundle(f"{self.name} has no version of bundle {new.digest[:12]}: register it again")
                crown(client, version)

    def restore(self, old: BundleRef | None, new: BundleRef, why: str) -> None:
        """Whose version was deleted meanwhile can be neither champion nor told why."""
        with self._open() as client:
            champion, challenger = self._ref(client, CHAMPION), self._ref(client, CHALLENGER)
            before, version = self.version(client, old) if old is not None else None, self.version(client, new)
            if before is not None and (champion is None or champion.digest != before.tags["bundle"]):
                crown(client, before)
            elif before is None and champion is not None and champion.digest == new.digest:
                client.delete_registered_model_alias(self.name, CHAMPION)
            if challenger is not None and challenger.digest == new.digest:
                client.delete_registered_model_alias(self.name, CHALLENGER)
            if version is not None and version.tags.get(WHY) != why:
                client.set_model_version_tag(self.name, version.version, WHY, why)

    def version(self, client: "MlflowClient", ref: BundleRef) -> "ModelVersion | None":
        """The one the rollout began with, else the oldest of the same bundle; None where all were deleted."""
        found = client.search_model_versions(f"name = '{self.name}' and tags.bundle = '{ref.digest}'")
        named = next((version for version in found if str(version.version) == ref.version), None)
        return named or min(found, key=lambda version: int(version.version), default=None)

    @contextmanager
    def _open(self) -> Iterator["MlflowClient"]:
        try:
            with open_registry(None if self.tracking else self.home, self.tracking) as client:
                yield client
        except (RegistryUnavailable, UnknownBundle) as problem:
            raise Unreachable(str(problem)) from problem
