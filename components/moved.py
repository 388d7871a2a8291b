"""What of a step's result moves on to where only a part of it is read: in a cluster, everything a step is given is first downloaded.

A shop's year at seven cuts is half a gigabyte of features; who packs, judges or registers a bundle reads the last cut of it.
Within one machine the parts are hard links.
"""

import os
import shutil
from pathlib import Path

from components.cut import cut_folders
from components.start import TOWERS_KEPT


def last_cut(features: Path | str, out: Path | str) -> None:
    """The last cut of a features step's output, the weeks it is judged by, the report: what a bundle is packed from and judged on."""
    features = Path(features)
    _share(features, Path(out), ["features.json", f"cuts/{cut_folders(features)[-1].name}", "judged"])


def last_sources(retrieval: Path | str, out: Path | str) -> None:
    """The sources of the last cut and the report, which go into the bundle; the last towers, which are kept beside it."""
    retrieval = Path(retrieval)
    towers = [f"towers/{file.name}" for file in sorted(retrieval.glob("towers/*.pt"))[-TOWERS_KEPT:]]
    _share(retrieval, Path(out), ["retrieval.json", f"cuts/{cut_folders(retrieval)[-1].name}", *towers])


def _share(folder: Path, out: Path, parts: list[str]) -> None:
    """These files and folders of `folder`, where they are there, at the same places below `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for part in parts:
        source, target = folder / part, out / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_link)
        elif source.is_file():
            _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
