"""Candidate sources fitted at every cut of a features folder, the two towers learnt along the cuts, and what each source is worth."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from components.retrieval.report import measure
from components.retrieval.twins import LEARNERS, Learner, fit_of
from components.retrieval.weights import learn_weights
from components.start import Start
from serving.retrieval.sources import load_sources
from serving.system import SourceSpec, System


def fit(system: System, features: Path, out: Path, fast: bool = False, seed: int = 0, start: Path | None = None) -> None:
    """Write `cuts/<cut>/sources/<source>/`, `towers/<cut>.pt` and `retrieval.json` for every cut under `features/cuts`, oldest first.

    With a tower also `cuts/<cut>/user_vectors.npy` (U, D). `fast` learns less. Measured on the last cut that has labels. `start`: a
    `components.start.Start` whose towers are gone on from. Raises `components.start.BadStart`.
    """
    import torch

    names = sorted(path.name for path in (features / "cuts").iterdir() if path.is_dir())
    cuts = {name: Cut.load(features / "cuts" / name) for name in names}
    begun = Start.load(start) if start else None
    if begun:
        begun.refuse_if_it_knows(names[-1])
    torch.set_num_threads(1)  # two kinds of work side by side, a core each; threads that spin cost more than they bring
    vectors: NDArray[np.float32] | None = None
    with ThreadPoolExecutor(max_workers=1) as beside:
        counted = [beside.submit(_counted, system, cut, _sources(out, cut), fast) for cut in cuts.values()]
        learner = _learner(system, fast, seed, begun)
        for name, cut in cuts.items():
            if learner is None:
                break
            spec, learning = learner
            vectors = learning.advance(cut, _sources(out, cut) / spec.folder, out / "towers" / f"{name}.pt")
            np.save(out / "cuts" / name / "user_vectors.npy", vectors, allow_pickle=False)
        for fitted in counted:
            fitted.result()
    weights = learn_weights(system, list(cuts.values()), out) if system.fusion == "learnt" else {}
    measured = _measured(system, list(cuts.values()), out)
    told = {
        "losses": learner[1].losses if learner else [],
        "fast": fast,
        "seed": seed,
        "mode": "daily" if begun else "full",
        "started_from": [begun.bundle] if begun else [],
        "weights": weights,
    }
    (out / "retrieval.json").write_text(json.dumps({**told, "cuts": names, "recall": measured}, indent=1) + "\n")


def _sources(out: Path, cut: Cut) -> Path:
    return out / "cuts" / cut.name / "sources"


def _measured(system: System, cuts: list[Cut], out: Path) -> dict[str, object]:
    """What the sources are worth at the newest cut with labels; nothing where none has any."""
    for cut in reversed(cuts):
        if len(cut.labels[0]):
            file = out / "cuts" / cut.name / "user_vectors.npy"
            vectors = np.load(file) if file.is_file() else None
            return measure(system, cut, load_sources(system.sources, _sources(out, cut), cut.catalogue), vectors)
    return {}


def _counted(system: System, cut: Cut, folder: Path, fast: bool) -> None:
    for spec in system.sources:
        if spec.kind not in LEARNERS:
            fit_of(spec.kind)(cut, spec, folder / spec.folder, fast)


def _learner(system: System, fast: bool, seed: int, start: Start | None) -> tuple[SourceSpec, Learner] | None:
    """The source that learns along the cuts, if the system has one."""
    spec = next((spec for spec in system.sources if spec.kind in LEARNERS), None)
    return None if spec is None else (spec, LEARNERS[spec.kind](spec, fast, seed, start))
