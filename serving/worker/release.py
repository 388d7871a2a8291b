"""Which bundle is to be answered from, as a file says that the release tools replace.

The file is JSON: `{"bundle": PATH, "users": PATH, "digest": "sha256:…"}`. While another bundle is tried it is named too, with the
percentage of the users it answers: `"beside": {"bundle": …, "users": …, "digest": …, "percent": 5, "salt": "…"}`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from serving.bundle.bundle import BadBundle, verify
from serving.bundle.signature import BadKey, check_signature
from serving.two_bundles import Split


class BesideRelease(msgspec.Struct, frozen=True):
    """A bundle that answers some of the users; the fields as those of `Release`."""

    bundle: str
    users: str | None = None
    digest: str = ""
    retrieval: str = ""
    ranking: str = ""
    percent: float = 0.0  # of the users
    salt: str = ""  # of the hash that picks them


class Release(msgspec.Struct, frozen=True):
    """Folders of a bundle and of its users (none: every user starts from their events); `digest` empty: what the bundle says of itself.

    Paths that are not absolute lie beside the file. `retrieval`, `ranking`: HOST:PORT of this bundle's halves (role recommender); empty:
    those of the options.
    """

    bundle: str
    users: str | None = None
    digest: str = ""
    retrieval: str = ""
    ranking: str = ""
    beside: BesideRelease | None = None

    @property
    def split(self) -> Split:
        """Who answers whom."""
        if self.beside is None:
            return Split(self.digest)
        return Split(self.digest, self.beside.digest, self.beside.percent, self.beside.salt)

    @property
    def loaded(self) -> frozenset[tuple[str | None, ...]]:
        """What has to be loaded for it, whoever answers whom."""
        return frozenset((one.bundle, one.users, one.digest, one.retrieval, one.ranking) for one in self._bundles())

    def _bundles(self) -> "Iterator[Release | BesideRelease]":
        yield self
        if self.beside is not None:
            yield self.beside


T = TypeVar("T", Release, BesideRelease)


class BadRelease(ValueError):
    """The file cannot be read, or names a bundle that cannot be served."""


def read_release(path: Path) -> Release:
    """What the file says now. Raises `BadRelease`."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=Release)
    except (OSError, msgspec.DecodeError) as error:
        raise BadRelease(f'release file {path}: {error}: write {{"bundle": PATH, "users": PATH, "digest": "sha256:…"}} to it') from error
    beside = _whole(told.beside, path) if told.beside is not None else None
    return msgspec.structs.replace(_whole(told, path), beside=beside)


def _whole(told: T, path: Path) -> T:
    """The same with whole paths."""
    users = str(path.parent / told.users) if told.users else None
    return msgspec.structs.replace(told, bundle=str(path.parent / told.bundle), users=users)


def write_release(path: Path, release: Release) -> None:
    """Replace the file in one step: who reads it sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        file.write(msgspec.json.encode(release))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def checked(release: Release, signed_by: Path | None = None) -> Release:
    """The release with its digest, every file of its bundles hashed. Raises `BadRelease`; takes a second a gigabyte.

    `signed_by`: a public key, or a folder of them, one of which must have signed them.
    """
    beside = release.beside and _checked(release.beside, signed_by)
    return msgspec.structs.replace(_checked(release, signed_by), beside=beside)


def _checked(release: T, signed_by: Path | None) -> T:
    try:
        found = verify(Path(release.bundle))
        if signed_by is not None:
            check_signature(Path(release.bundle), found, signed_by)
    except (OSError, BadBundle, BadKey) as error:
        raise BadRelease(f"bundle {release.bundle} cannot be served: {error}") from error
    if release.digest not in ("", found):
        raise BadRelease(f"bundle {release.bundle} is {found}, the release file names {release.digest}: write its file again")
    if release.users is not None and not Path(release.users).is_dir():
        raise BadRelease(f"users {release.users} are not there: put them there, or leave them out of the release file")
    return msgspec.structs.replace(release, digest=found)
