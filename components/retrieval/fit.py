"""Candidate sources fitted at every cut of a features folder, the two towers learnt along the cuts, and what each source is worth."""

import json
from pathlib import Path

import numpy as np

from components.retrieval import buy_again, category_promotion, linear, trending, two_tower
from components.retrieval.cuts import Cut
from components.retrieval.report import measure
from serving.sources import load_sources
from serving.system import SourceSpec, System

COUNTED = {"buy_again": buy_again.fit, "category_promotion": category_promotion.fit, "trending": trending.fit}


class UnfittableSource(ValueError):
    """A system names a source that nothing here fits."""


def fit(system: System, features: Path, out: Path, fast: bool = False, seed: int = 0) -> None:
    """Write `cuts/<cut>/sources/<kind>/`, `towers/<cut>.pt` and `retrieval.json` for every cut under `features/cuts`, oldest first.

    With a tower also `cuts/<cut>/user_vectors.npy` (U, D). `fast` learns less. Measured on the last cut that has labels.
    """
    names = sorted(path.name for path in (features / "cuts").iterdir() if path.is_dir())
    towers = _towers(system, fast, seed)
    measured: dict[str, object] = {}
    for name in names:
        cut = Cut.load(features / "cuts" / name)
        folder = out / "cuts" / name / "sources"
        for spec in system.sources:
            _fit(spec, cut, folder / spec.kind, fast)
        vectors = None
        if towers is not None:
            vectors = towers.advance(cut, folder / "two_tower", out / "towers" / f"{name}.pt")
            np.save(folder.parent / "user_vectors.npy", vectors, allow_pickle=False)
        if len(cut.labels[0]) and name in names[-2:]:
            measured = measure(system, cut, load_sources(system.sources, folder, cut.catalogue), vectors)
    (out / "retrieval.json").write_text(json.dumps({"fast": fast, "seed": seed, "cuts": names, "recall": measured}, indent=1) + "\n")


def _fit(spec: SourceSpec, cut: Cut, folder: Path, fast: bool) -> None:
    if spec.kind == "linear":
        linear.fit(cut, spec, folder, linear.FAST if fast else linear.FULL)
    elif spec.kind in COUNTED:
        COUNTED[spec.kind](cut, spec, folder)
    elif spec.kind != "two_tower":
        known = ", ".join(sorted([*COUNTED, "linear", "two_tower"]))
        raise UnfittableSource(f"source {spec.kind!r} has no fit: known are {known}; add components/retrieval/{spec.kind}.py")


def _towers(system: System, fast: bool, seed: int) -> "two_tower.Advancing | None":
    spec = next((spec for spec in system.sources if spec.kind == "two_tower"), None)
    return None if spec is None else two_tower.Advancing(spec, fast, seed)
