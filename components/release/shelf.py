"""Bundles on S3, each at `models/<system>/<digest>/` for ever, its users at `models/<system>-users/<digest>/`: put once, proven there.

What is there is never written again: another content under the same name is refused, and told.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from pyarrow import fs

from components.release.fetch import NotFetched, bundle_fault, fetch, users_fault
from components.release.registry import RegistryUnavailable, address, open_registry
from components.release.releases import ReleasedBundle, move_in, place_of
from components.release.rollout import Refused, Unreachable
from components.release.rollout_names import Registry
from components.release.rollout_state import BundleRef
from components.release.services import BUCKET
from serving.system import System


def s3() -> fs.FileSystem:
    """The store of the environment: AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the usual keys."""
    parts = urlsplit(os.environ.get("AWS_ENDPOINT_URL", ""))
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    if not parts.netloc:
        return fs.S3FileSystem(region=region)
    return fs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, region=region)


@dataclass(frozen=True)
class Shelf:
    """The bundles of one system on a file system."""

    store: fs.FileSystem
    system: System
    bucket: str = BUCKET

    def place(self, digest: str) -> str:
        return f"{self.bucket}/{self.system.name}/{digest}"

    def users_place(self, digest: str) -> str:
        return f"{self.bucket}/{self.system.name}-users/{digest}"

    def put(self, found: ReleasedBundle, digest: str, users: str = "") -> None:
        """Copy what is not there and prove what is. `users`: their digest, where known. Raises `Refused`, `Unreachable`."""
        with _explained(self.place(digest)):
            for source, target in ((found.users, self.users_place(digest)), (found.bundle, self.place(digest))):
                self._copy(source, target)
        self._prove(digest, users)

    def _copy(self, source: Path, target: str) -> None:
        there = {info.path: info.size for info in self.store.get_file_info(fs.FileSelector(target, recursive=True, allow_not_found=True))}
        for path in sorted(source.rglob("*")):
            name = f"{target}/{path.relative_to(source).as_posix()}"
            if path.is_file() and there.get(name) != path.stat().st_size:
                if name in there:
                    raise Refused(f"{name} holds something else: what is there is never written again; take it away by hand")
                self.store.create_dir(name.rpartition("/")[0])
                fs.copy_files(str(path), name, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.store)

    def _prove(self, digest: str, users: str) -> None:
        with TemporaryDirectory(prefix="proving-") as folder:
            self._fetched(digest, Path(folder), users)

    def fetch(self, digest: str, home: Path) -> ReleasedBundle:
        """The bundle and its users under `home`, proven; what is there already is proven, too. Raises `Refused`, `Unreachable`."""
        place = place_of(digest, home)
        if not bundle_fault(self.system, place.bundle, digest) and place.users.is_dir():
            return place
        work = home / f".fetching.{os.getpid()}"
        shutil.rmtree(work, ignore_errors=True)
        try:
            got = self._fetched(digest, work, "")
            for fresh, target in ((got.users, place.users), (got.bundle, place.bundle)):
                target.parent.mkdir(parents=True, exist_ok=True)
                move_in(fresh, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return place

    def _fetched(self, digest: str, folder: Path, users: str) -> ReleasedBundle:
        got = ReleasedBundle(folder / "bundle", folder / "users")
        with _explained(self.place(digest)):
            for source, target in ((self.place(digest), got.bundle), (self.users_place(digest), got.users)):
                target.mkdir(parents=True)
                fs.copy_files(source, str(target), source_filesystem=self.store, destination_filesystem=fs.LocalFileSystem())
        if fault := bundle_fault(self.system, got.bundle, digest) or users_fault(got.users, users):
            raise Refused(f"{self.place(digest)} is not bundle {digest[:12]}: {fault}")
        return got


@contextmanager
def _explained(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:  # what pyarrow says of everything that is elsewhere
        raise Unreachable(f"{place} cannot be reached ({' '.join(str(problem).split())[:300]})") from problem


@dataclass
class Stager:
    """`components.release.rollout.Staging`: from the registry to the shelf, each bundle once for this process."""

    registry: Registry
    shelf: Shelf
    staged: str = ""  # digest of the last one

    def stage(self, ref: BundleRef) -> None:
        if ref.digest == self.staged:
            return
        registry = self.registry
        try:
            with open_registry(None if registry.tracking else registry.home, registry.tracking) as client:
                version = registry.version(client, ref)
                if version is None:
                    raise Refused(f"{registry.name} has no version of bundle {ref.digest[:12]}: register it again")
                found = fetch(registry.system, version, registry.home, address(registry.home, registry.tracking))
        except NotFetched as problem:
            raise (Refused if problem.refused else Unreachable)(str(problem)) from problem
        except RegistryUnavailable as problem:
            raise Unreachable(str(problem)) from problem
        self.shelf.put(found, ref.digest, str(version.tags.get("users", "")))
        self.staged = ref.digest
