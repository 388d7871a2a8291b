"""Data, system files and bundles that are given by an address, `s3://BUCKET/PATH`, as a folder or file here.

Credentials and endpoint come from the environment as AWS names them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …): a cluster's steps are
given them by reference to a Secret. pyarrow reads S3, so nothing is installed for it.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

SCHEME = "s3://"


class NotThere(ValueError):
    """Nothing lies at the address, or it cannot be read."""


def local(address: str) -> str:
    """A path that holds what the address names; a path of this machine is given back as it is. Raises `NotThere`."""
    if not address.startswith(SCHEME):
        return address
    into = Path(tempfile.gettempdir()) / "shortlist-remote" / hashlib.sha256(address.encode()).hexdigest()[:16]
    return str(bring(address, into))


def bring(address: str, into: Path) -> Path:
    """Every object below the address, or the one object it is, under `into`; where it lies then. Raises `NotThere`."""
    path = address.removeprefix(SCHEME).rstrip("/")
    import pyarrow as pa
    from pyarrow import fs

    store, endpoint = _store()
    where = f"{SCHEME}{path} at {endpoint or 'AWS'}"
    try:
        (found,) = store.get_file_info([path])
        if found.type == fs.FileType.File:
            target = into / path.rpartition("/")[2]
            _download(store, path, target)
            return target
        files = [one for one in store.get_file_info(fs.FileSelector(path, recursive=True)) if one.type == fs.FileType.File]
        for one in files:
            _download(store, one.path, into / one.path.removeprefix(f"{path}/"))
    except (OSError, pa.ArrowException) as problem:
        said = " ".join(str(problem).split())[:300]
        raise NotThere(f"{where} cannot be read ({said}): check the address, AWS_ENDPOINT_URL and the credentials") from problem
    if not files:
        raise NotThere(f"{where} holds nothing: upload the tables there, or correct the address")
    return into


def send(folder: Path, address: str, last: str = "") -> None:
    """Every file of the folder to below the address; `last`: the name of the one whose being there says that all are. Raises `NotThere`."""
    import pyarrow as pa
    from pyarrow import fs

    store, endpoint = _store()
    path = address.removeprefix(SCHEME).rstrip("/")
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: (file.name == last, file))
    try:
        if last and store.get_file_info([f"{path}/{last}"])[0].type == fs.FileType.File:
            return  # complete, and what is named by its content never changes
        for file in files:
            fs.copy_files(
                str(file),
                f"{path}/{file.relative_to(folder).as_posix()}",
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=store,
            )
    except (OSError, pa.ArrowException) as problem:
        said = " ".join(str(problem).split())[:300]
        raise NotThere(
            f"{SCHEME}{path} at {endpoint or 'AWS'} cannot be written ({said}): check the address and the credentials"
        ) from problem


def _store() -> tuple[Any, str]:
    """S3 as the environment says, and where that is."""
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.rpartition("://")
    options = {"endpoint_override": host, "scheme": scheme} if host else {}
    return fs.S3FileSystem(region=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"), **options), endpoint


def _download(store: Any, path: str, target: Path) -> None:
    from pyarrow import fs

    target.parent.mkdir(parents=True, exist_ok=True)
    fs.copy_files(path, str(target), source_filesystem=store, destination_filesystem=fs.LocalFileSystem(), use_threads=False)
