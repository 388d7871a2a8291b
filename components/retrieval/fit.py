"""Candidate sources fitted at every cut of a features folder, the two towers learnt along the cuts, and what each source is worth."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from components.cut import Cut, cut_folders
from components.retrieval.report import measure
from components.retrieval.twins import LEARNERS, fit_of
from components.retrieval.weights import learn_weights
from components.start import Start
from components.together import ALONE, Together, by_processes
from serving.retrieval.sources import load_sources
from serving.system import System


def fit(
    system: System, features: Path, out: Path, fast: bool = False, seed: int = 0, start: Path | None = None, together: Together = ALONE
) -> None:
    """Write `cuts/<cut>/sources/<source>/`, `towers/<cut>.pt` and `retrieval.json` for every cut under `features/cuts`, oldest first.

    With a tower also `cuts/<cut>/user_vectors.npy` (U, D). `fast` learns less. Measured on the last cut that has labels. `start`: a
    `components.start.Start` whose towers are gone on from. `together`: one of several processes that do this, of which the first does what
    is not learnt in steps; where the system says so and there is one, it starts them. Raises `components.start.BadStart`.
    """
    import torch

    cuts = _cuts(features)
    names = list(cuts)
    begun = Start.load(start) if start else None
    if begun:
        begun.refuse_if_it_knows(names[-1])
    if not together.first:
        along(system, features, out, fast, seed, start, together)
        return
    torch.set_num_threads(1)  # two kinds of work side by side, a core each; threads that spin cost more than they bring
    with ThreadPoolExecutor(max_workers=1) as beside:
        counted = [beside.submit(_counted, system, cut, _sources(out, cut), fast) for cut in cuts.values()]
        given = (system, features, out, fast, seed, start)
        more = system.learning.processes if together.world == 1 else 1
        losses = by_processes(along, given, out, more) if more > 1 else along(*given, together)
        for fitted in counted:
            fitted.result()
    weights = learn_weights(system, list(cuts.values()), out) if system.fusion == "learnt" else {}
    measured = _measured(system, list(cuts.values()), out)
    told = {
        "losses": losses,
        "fast": fast,
        "seed": seed,
        "mode": "daily" if begun else "full",
        "started_from": [begun.bundle] if begun else [],
        "weights": weights,
    }
    (out / "retrieval.json").write_text(json.dumps({**told, "cuts": names, "recall": measured}, indent=1) + "\n")


def _cuts(features: Path) -> dict[str, Cut]:
    """Oldest first."""
    return {folder.name: Cut.load(folder) for folder in cut_folders(features)}


def along(system: System, features: Path, out: Path, fast: bool, seed: int, start: Path | None, together: Together = ALONE) -> list[float]:
    """Learn the one source that learns along the cuts, if the system has one; its last loss at each cut."""
    spec = next((spec for spec in system.sources if spec.kind in LEARNERS), None)
    if spec is None:
        return []
    learner = LEARNERS[spec.kind](spec, fast, seed, Start.load(start) if start else None, together)
    for name, cut in _cuts(features).items():
        vectors = learner.advance(cut, _sources(out, cut) / spec.folder, out / "towers" / f"{name}.pt")
        if vectors is not None:
            np.save(out / "cuts" / name / "user_vectors.npy", vectors, allow_pickle=False)
    return learner.losses


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
