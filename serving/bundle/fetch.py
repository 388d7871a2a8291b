"""Bundles and users from S3 into folders, before a server starts: `python -m serving.bundle.fetch s3://models/shop/DIGEST /bundle …`.

A folder that turns out to be a bundle is proven: every file is hashed, and its digest has to be the last part of its address.
"""

import sys
from pathlib import Path

from serving.bundle.bundle import BadBundle, verify
from serving.remote import NotThere, bring


def fetch_all(addresses: list[tuple[str, Path]]) -> None:
    """Each address into its folder. Raises `NotThere`, or `BadBundle` naming the first file that is not as it should be."""
    for address, into in addresses:
        if (bring(address, into) / "bundle.json").is_file():
            named, found = address.rstrip("/").rpartition("/")[2], verify(into).removeprefix("sha256:")
            if found != named:
                raise NotThere(f"{address} holds bundle {found}, not the one it is named after: upload the right one there")
        print(f"brought={address} into={into}", flush=True)


if __name__ == "__main__":
    told = sys.argv[1:]
    try:
        fetch_all([(address, Path(folder)) for address, folder in zip(told[::2], told[1::2], strict=True)])
    except (NotThere, BadBundle) as problem:
        sys.exit(str(problem))
