"""Fits `serving/retrieval/followed.py`: there is nothing to count, it reads the catalogue and what the user follows."""

from pathlib import Path

from components.cut import Cut
from serving.retrieval.followed import Newness
from serving.system import SourceSpec


def fit(cut: Cut, spec: SourceSpec, folder: Path, fast: bool = False) -> None:
    """Only how long an item counts as new."""
    Newness(float(spec.settings["days"])).save(folder)
