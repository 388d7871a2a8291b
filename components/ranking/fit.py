"""The step ranking: examples from the weekly cuts, then the light and the heavy ranker, calibrated on the newest week held out.

fit(load_system("shop"), features, retrieval, out)      light.pt, heavy.pt, ranking.json
"""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.ranking.calibrate import Scaling, fold, scaling_of
from components.ranking.cuts import code_sizes, cut_folders, load_cut, training_cuts
from components.ranking.examples import Examples, Sampling, join, make_examples
from components.ranking.judge import judge, worth
from components.ranking.model import Ranker, Sizes, save
from components.ranking.train import Fitting, Material, predict
from components.ranking.train import fit as fit_ranker
from serving.catalogue import Catalogue
from serving.features import cross_names, request_names
from serving.state import StateTable
from serving.system import System

WORKERS = 2  # processes that make examples, a cut at a time


@dataclass(frozen=True)
class Plan:
    """How much is spent on learning to rank."""

    cuts: int  # newest training cuts
    sampling: Sampling
    light: tuple[int, ...]  # widths of the hidden layers, first that of the halves
    heavy: tuple[int, ...]
    fitting: Fitting


FULL = Plan(6, Sampling(), (64,), (192, 64), Fitting())
FAST = Plan(2, Sampling(users=400, top=40, rest=40), (32,), (128, 32), Fitting(epochs=4))


def fit(system: System, features: Path, retrieval: Path, out: Path, fast: bool = False, seed: int = 0) -> dict[str, Any]:
    """Write `light.pt`, `heavy.pt` and `ranking.json` to `out`. The same inputs and seed give the same bytes.

    Raises `ValueError` when no cut before the last has labels.
    """
    plan = FAST if fast else FULL
    cuts = training_cuts(features, plan.cuts)
    examples = all_examples(system, features, retrieval, cuts, plan.sampling, seed)
    newest = Catalogue.load(cut_folders(features)[-1] / "item_table")
    material = Material.of(examples, [Catalogue.load(features / "cuts" / name / "item_table") for name in cuts], newest)
    record: dict[str, Any] = {"cuts": cuts, "examples": len(examples.item), "queries": len(examples.size), "seed": seed}
    users = StateTable.load(features / "cuts" / cuts[-1] / "users")
    record["features"] = {
        "request": request_names(users.feature_names), "item": newest.feature_names, "cross": cross_names(system.sources),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for name, hidden in (("light", plan.light), ("heavy", plan.heavy)):
        sizes = Sizes(examples.request.shape[1], newest.features.shape[1], examples.cross.shape[1], code_sizes(newest), hidden)
        model, record[name] = fit_one(system, material, sizes, replace(plan.fitting, seed=seed))
        save(model, out / f"{name}.pt")
    (out / "ranking.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def all_examples(system: System, features: Path, retrieval: Path, cuts: list[str], sampling: Sampling, seed: int) -> Examples:
    """The examples of these cuts, made by a few processes at once; how many does not change a byte."""
    work = [(system, features, retrieval, name, sampling, seed, index) for index, name in enumerate(cuts)]
    with ProcessPoolExecutor(min(WORKERS, len(cuts)), mp_context=get_context("spawn")) as pool:
        return join(list(pool.map(examples_of, *zip(*work, strict=True))))


def examples_of(system: System, features: Path, retrieval: Path, name: str, sampling: Sampling, seed: int, index: int) -> Examples:
    """The examples of one cut, in a process of its own."""
    return make_examples(system, load_cut(system, features, retrieval, name), sampling, seed, index)


def fit_one(system: System, material: Material, sizes: Sizes, fitting: Fitting) -> tuple[Ranker, dict[str, Any]]:
    """Learn from all cuts but the newest, calibrate and judge on that one, then learn from all."""
    cuts = int(material.examples.cut.max()) + 1
    held_out = material.of_cuts(cuts - 1, cuts)
    older = material.of_cuts(0, cuts - 1)
    trial = fit_ranker(sizes, material, older if len(older) else held_out, fitting)
    scaling, metrics = calibrated(system, trial, material, held_out)
    final = fold(fit_ranker(sizes, material, material.of_cuts(0, cuts), fitting), scaling)
    record = {"hidden": list(sizes.hidden), "fitting": asdict(fitting), "scaling": [list(pair) for pair in scaling], "held_out": metrics}
    return final, record


def calibrated(system: System, model: Ranker, material: Material, queries: NDArray[np.intp]) -> tuple[Scaling, dict[str, float]]:
    """The scaling of both heads on these queries, and how good the scaled order is there."""
    logits = predict(model, material, queries)
    at, _ = material.rows_of(queries)
    examples = material.examples
    seen = examples.seen[at]
    scaling = scaling_of(logits, seen, examples.label[at], examples.weight[at])
    a, b = np.array(scaling).T
    head = (~seen).astype(int)
    return scaling, judge(material, queries, worth((a[head] * logits + b[head]).astype(np.float32), seen, system.objectives))
