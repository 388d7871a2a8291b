"""What a candidate has to beat: the bundle behind the registry's `champion` at this moment, fetched."""

import shutil
from pathlib import Path

from components.release import register
from serving.system import System


def champion(system: System, out: Path, home: str = "", tracking: str = "") -> None:
    """Put the champion's bundle at `out/<digest>/`; leave `out` empty when there is none yet."""
    out.mkdir(parents=True, exist_ok=True)
    bundle = register.champion(system, home, tracking)
    if bundle is not None:
        shutil.copytree(bundle, out / bundle.name)
