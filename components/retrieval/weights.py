"""How much each source says in the fused rank, learnt from the weeks after the newest cuts: for a system whose file says fusion="learnt".

The kinds' own weights were chosen on a grocer's year. A log of another kind wants others: on MovieLens-100K popularity alone is twice as
good as the grocer's mixture. A few numbers chosen by coordinate ascent on NDCG@10 of the fused order, from the file's own on; the week a
release is judged on is not read. Each question is asked once more as a newcomer's, whose list is in the fused rank's order alone: of few
users a tower makes a poor vector of nobody, and a source that is right for the others put newcomers' lists below popularity.
Shapes: S sources, D distinct items of a question's lists, Q questions.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from components.retrieval.report import JudgedQuery, questions
from serving.retrieval.fusion import RANK_OFFSET, weight
from serving.retrieval.source import Source
from serving.retrieval.sources import LEARNT, load_sources
from serving.state.user_state import UserState
from serving.system import SourceSpec, System

CUTS, USERS = 6, 200  # newest labelled cuts but the last, and users of each that are asked
WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
ROUNDS = 3
DEPTH = 200  # of each list: what the first ten are made of
GAINS = 1 / np.log2(np.arange(2, 12))


def learn_weights(system: System, cuts: Sequence[Cut], out: Path) -> dict[str, dict[str, float]]:
    """Each source's `weight` and `discover_weight`, written beside its arrays at every cut (`fusion.json`); none without a labelled cut."""
    labelled = [cut for cut in cuts[:-1] if len(cut.labels[0])][-CUTS:]
    learnt: dict[str, dict[str, float]] = {spec.folder: {} for spec in system.sources}
    for name, discover in (("weight", False), ("discover_weight", True)):
        asked = [one for cut in labelled for one in _asked(system, cut, out / "cuts" / cut.name, discover)]
        if asked:
            for spec, found in zip(system.sources, ascend(asked, [weight(spec, discover) for spec in system.sources]), strict=True):
                learnt[spec.folder][name] = found
    for cut in cuts:
        for folder, weights in learnt.items():
            if weights:
                (out / "cuts" / cut.name / "sources" / folder / LEARNT).write_text(json.dumps(weights, sort_keys=True) + "\n")
    return learnt


class RankedLists:
    """One question: 1 / (offset + rank) of every listed item in every list (D, S), and which items were chosen (D,)."""

    def __init__(self, lists: Sequence[NDArray[np.int32]], specs: Sequence[SourceSpec], truth: NDArray[np.int32]) -> None:
        items = np.unique(np.concatenate(lists))
        self.terms = np.zeros((len(items), len(lists)))
        for s, (rows, spec) in enumerate(zip(lists, specs, strict=True)):
            offset = float(spec.settings.get("offset", RANK_OFFSET))
            self.terms[np.searchsorted(items, rows), s] = 1 / (offset + np.arange(len(rows)))
        self.chosen = np.isin(items, truth)
        self.ideal = GAINS[: min(len(truth), len(GAINS))].sum()

    def ndcg(self, weights: NDArray[np.float64]) -> float:
        """NDCG@10 of the fused order."""
        fused = self.terms @ weights
        best = np.argsort(-fused, kind="stable")[: len(GAINS)]
        return float((self.chosen[best] * (fused[best] > 0) * GAINS[: len(best)]).sum() / self.ideal)


def ascend(asked: Sequence[RankedLists], start: Sequence[float]) -> list[float]:
    """The weights after a few rounds, one source at a time; a weight is left where none of the others does better by a thousandth."""
    weights = np.array(start, np.float64)
    best = _mean(asked, weights)
    for _ in range(ROUNDS):
        before = best
        for s in range(len(weights)):
            for tried in WEIGHTS:
                trial = np.where(np.arange(len(weights)) == s, tried, weights)
                found = _mean(asked, trial)
                if found > best + 1e-3:
                    weights, best = trial, found
        if best == before:
            break
    return [float(value) for value in weights]


def _mean(asked: Sequence[RankedLists], weights: NDArray[np.float64]) -> float:
    return float(np.mean([one.ndcg(weights) for one in asked])) if weights.any() else 0.0


def _asked(system: System, cut: Cut, fitted: Path, discover: bool) -> list[RankedLists]:
    """The questions of some users with labels at a cut, each once more as if nothing were known of who asks."""
    file = fitted / "user_vectors.npy"
    vectors = np.load(file) if file.is_file() else None
    nobody = None if vectors is None else nobodys_vector(fitted.parents[1] / "towers" / f"{cut.name}.pt")
    sources = load_sources(system.sources, fitted / "sources", cut.catalogue)
    chosen = list(questions(system, cut, discover, vectors, USERS))
    chosen += [replace(one, query=replace(one.query, state=_unknown(one.query.state)), vector=nobody) for one in chosen]
    return [RankedLists(_shown(one, sources), system.sources, one.truth) for one in chosen]


def _unknown(state: UserState) -> UserState:
    """The same person on the first visit."""
    return UserState(state.user_id, place=state.place, region=state.region, consent=state.consent)


def nobodys_vector(towers: Path) -> NDArray[np.float32]:
    """(D,) of a user of whom nothing is known."""
    import torch

    from components.retrieval.tower_model import Towers

    found = Towers.load(towers)
    features, bag = torch.full((1, found.config.user_features), torch.nan), torch.zeros(1, found.config.dimensions)
    with torch.no_grad():
        return np.asarray(found.user(features, bag)[0].numpy())


def _shown(one: JudgedQuery, sources: Sequence[Source]) -> list[NDArray[np.int32]]:
    """Each source's list without what the user never wants again."""
    lists = (source.retrieve(one.query, DEPTH, one.vector).rows for source in sources)
    return [rows[np.isin(rows, one.query.hidden, invert=True)] for rows in lists]
