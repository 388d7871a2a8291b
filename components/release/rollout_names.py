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
    version_of,
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
                crown(client, self.version(client, new))

    def restore(self, old: BundleRef | None, new: BundleRef, why: str) -> None:
        with self._open() as client:
            champion, challenger = self._ref(client, CHAMPION), self._ref(client, CHALLENGER)
            if old is not None and (champion is None or champion.digest != old.digest):
                crown(client, self.version(client, old))
            if challenger is not None and challenger.digest == new.digest:
                client.delete_registered_model_alias(self.name, CHALLENGER)
            version = self.version(client, new)
            if version.tags.get(WHY) != why:
                client.set_model_version_tag(self.name, version.version, WHY, why)

    def version(self, client: "MlflowClient", ref: BundleRef) -> "ModelVersion":
        """Raises `UnknownBundle`."""
        found = client.get_model_version(self.name, ref.version) if ref.version else version_of(client, self.name, ref.digest)
        if found is None or digest_in(found) != ref.digest:
            raise UnknownBundle(f"{self.name} has no version of bundle {ref.digest[:12]}: register it again")
        return found

    @contextmanager
    def _open(self) -> Iterator["MlflowClient"]:
        try:
            with open_registry(None if self.tracking else self.home, self.tracking) as client:
                yield client
        except (RegistryUnavailable, UnknownBundle) as problem:
            raise Unreachable(str(problem)) from problem
