"""Which bundle is to be answered from, as a file says that the release tools replace.

The file is JSON: `{"bundle": PATH, "users": PATH, "digest": "sha256:…"}`.
"""

import os
from pathlib import Path

import msgspec

from serving.bundle.bundle import BadBundle, verify
from serving.bundle.signature import BadKey, check_signature


class Release(msgspec.Struct, frozen=True):
    """Folders of a bundle and of its users (none: every user starts from their events); `digest` empty: what the bundle says of itself.

    Paths that are not absolute lie beside the file.
    """

    bundle: str
    users: str | None = None
    digest: str = ""


class BadRelease(ValueError):
    """The file cannot be read, or names a bundle that cannot be served."""


def read_release(path: Path) -> Release:
    """What the file says now. Raises `BadRelease`."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=Release)
    except (OSError, msgspec.DecodeError) as error:
        raise BadRelease(f'release file {path}: {error}: write {{"bundle": PATH, "users": PATH, "digest": "sha256:…"}} to it') from error
    users = str(path.parent / told.users) if told.users else None
    return Release(str(path.parent / told.bundle), users, told.digest)


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
    """The release with its digest, every file of its bundle hashed. Raises `BadRelease`; takes a second a gigabyte.

    `signed_by`: a public key, or a folder of them, one of which must have signed it.
    """
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
    return Release(release.bundle, release.users, found)
