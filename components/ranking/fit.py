"""The step ranking: examples from the weekly cuts, then the light and the heavy ranker, calibrated on the newest week held out.

fit(load_system("shop"), features, retrieval, out)      light.pt, heavy.pt, ranking.json
"""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.cut import cut_folders, training_cuts
from components.ranking.calibrate import Scaling, fold, scaling_of
from components.ranking.dead import dead_features
from components.ranking.examples import Examples, Sampling, join, make_examples
from components.ranking.fitted import code_sizes, load_cut
from components.ranking.held_out import judge
from components.ranking.model import Ranker, Sizes, load, save
from components.ranking.train import Fitting, Material, predict
from components.ranking.train import fit as fit_ranker
from components.ranking.warm import taken_over
from components.start import Start
from components.together import ALONE, Together, launch
from feature_repo.names import cross_names, request_names
from serving.bundle.catalogue import Catalogue
from serving.networks import Network
from serving.ranking.heads import Heads
from serving.state.user_state import StateTable
from serving.system import System

WORKERS = 2  # processes; each makes the examples of a cut, or fits a network, on one thread


@dataclass(frozen=True)
class Plan:
    """How much is spent on learning to rank."""

    cuts: int  # newest training cuts
    sampling: Sampling
    fitting: Fitting
    light: Network | None = None  # None: as the system says
    heavy: Network | None = None


DAILY_CUTS = 1  # the last target's days
# From weights that are good already. Choosing week, gone on for its last week, all and new N@10: .3358 .0284; .3349 .0280 at 5e-4;
# .3279 .0260 left alone. After a week in which all tastes had jumped 5e-4 unlearnt history: -.449 over leaving alone, now +.085.
GOING_ON = Fitting(epochs=1, least_steps=60, rate=1e-4)
FULL = Plan(6, Sampling(), Fitting(epochs=3))
FAST_SAMPLING = Sampling(top=40, rest=40)  # with 400 users new N@10 fell below popularity
FAST = Plan(3, FAST_SAMPLING, Fitting(epochs=3), Network((32,)), Network((128, 32)))


def fit(
    system: System, features: Path, retrieval: Path, out: Path, fast: bool = False, seed: int = 0, start: Path | None = None
) -> dict[str, Any]:
    """Write `light.pt`, `heavy.pt` and `ranking.json` to `out`. The same inputs and seed give the same bytes.

    `start`: a `components.start.Start` whose rankers are gone on from, on the newest cut alone. Raises `ValueError` when no cut before the
    last has labels, `components.start.BadStart` when those rankers read something else.
    """
    plan = FAST if fast else FULL
    if start:
        plan = replace(plan, cuts=DAILY_CUTS, fitting=GOING_ON)
    cuts = training_cuts(features, plan.cuts)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as work:
        examples = all_examples(system, features, retrieval, cuts, plan.sampling, seed)
        examples.save(Path(work))  # mapped by the processes that learn, not copied to them
        record: dict[str, Any] = {"cuts": cuts, "examples": len(examples.item), "queries": len(examples.size), "seed": seed}
        record["features"] = names_of(system, features, cuts[-1])
        record["dead"] = dead_features(
            examples, [Catalogue.load(features / "cuts" / name / "item_table") for name in cuts], record["features"]
        )
        given = (system, features, Path(work), cuts)
        fitting = replace(plan.fitting, seed=seed, diversity=system.learning.diversity)
        if start:
            jobs = [(*given, name, fitting, start) for name in ("heavy", "light")]
            heavy, light = in_processes(go_on, jobs)
        else:
            networks = (plan.heavy or system.learning.heavy, plan.light or system.learning.light)
            trials = [(*given, network, fitting, final) for final in (False, True) for network in networks]
            heavy_trial, light_trial, heavy, light = learn_all(trials, system.learning.processes, Path(work))
            pairs = ((heavy, heavy_trial), (light, light_trial))
            heavy, light = ((fold(model, told["scaling"]), told | learnt) for (model, learnt), (_, told) in pairs)
    for name, (model, told) in (("light", light), ("heavy", heavy)):
        save(model, out / f"{name}.pt")
        record[name] = {"hidden": list(model.sizes.hidden), "fitting": asdict(plan.fitting), **told}
    (out / "ranking.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def in_processes(function: Callable[..., Any], jobs: list[tuple[Any, ...]]) -> list[Any]:
    """The function's answers for each job, in order, from a few processes at once; how many does not change a byte."""
    with ProcessPoolExecutor(min(WORKERS, len(jobs)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, *zip(*jobs, strict=True)))


def learn_all(trials: list[tuple[Any, ...]], processes: int, work: Path) -> list[tuple[Ranker, dict[str, Any]]]:
    """`learn` of each, side by side; one after another where `processes` learn each together."""
    if processes == 1:
        return in_processes(learn, trials)
    return [launch(learn, trial, work / f"together{number}", processes) for number, trial in enumerate(trials)]


def names_of(system: System, features: Path, cut: str) -> dict[str, tuple[str, ...]]:
    """What the rankers read, in its order."""
    folder = features / "cuts" / cut
    users, items = StateTable.load(folder / "users"), Catalogue.load(folder / "item_table")
    cross = cross_names(system.kinds, system.learning.cross)
    return {"request": request_names(users.feature_names), "item": items.feature_names, "cross": cross}


def all_examples(system: System, features: Path, retrieval: Path, cuts: list[str], sampling: Sampling, seed: int) -> Examples:
    """The examples of these cuts."""
    jobs = [(system, features, retrieval, name, sampling, seed, index) for index, name in enumerate(cuts)]
    return join(in_processes(examples_of, jobs))


def examples_of(system: System, features: Path, retrieval: Path, name: str, sampling: Sampling, seed: int, index: int) -> Examples:
    """The examples of one cut, in a process of its own."""
    return make_examples(system, load_cut(system, features, retrieval, name), sampling, seed, index)


def learn(
    system: System,
    features: Path,
    examples: Path,
    cuts: list[str],
    network: Network,
    fitting: Fitting,
    final: bool,
    together: Together = ALONE,
) -> tuple[Ranker, dict[str, Any]]:
    """One ranker, in a process of its own: from all cuts if `final`; else from all but the newest, calibrated and judged on that one."""
    material, sizes, _ = _given(system, features, examples, cuts, network)
    objectives = tuple(system.objectives.values())
    older, held_out = material.of_cuts(0, len(cuts) - 1), material.of_cuts(len(cuts) - 1, len(cuts))
    if final:
        losses: list[float] = []
        queries = material.of_cuts(0, len(cuts))
        return fit_ranker(sizes, material, queries, fitting, objectives, losses.append, together=together), {"losses": losses}
    trial = fit_ranker(sizes, material, older if len(older) else held_out, fitting, objectives, together=together)
    scaling, metrics = calibrated(system, trial, material, held_out)
    return trial, {"scaling": scaling, "held_out": metrics}


def go_on(
    system: System, features: Path, examples: Path, cuts: list[str], name: str, fitting: Fitting, start: Path
) -> tuple[Ranker, dict[str, Any]]:
    """The ranker `name` of `start` after more learning, in a process of its own; told is how good it was before.

    It is calibrated, and goes on being so: log-loss moves it to the newest days' rates.
    """
    former = load(start / f"{name}.pt")
    had = former.sizes
    material, sizes, newest = _given(system, features, examples, cuts, Network(had.hidden, had.towers, had.context, had.dropout))
    begun = taken_over(former, sizes, Start.load(start), newest)
    queries = material.of_cuts(0, len(cuts))
    _, before = calibrated(system, begun, material, queries)
    losses: list[float] = []
    objectives = tuple(system.objectives.values())
    return fit_ranker(sizes, material, queries, fitting, objectives, losses.append, begun), {"held_out": before, "losses": losses}


def _given(system: System, features: Path, examples: Path, cuts: list[str], network: Network) -> tuple[Material, Sizes, Catalogue]:
    """What a ranker learns from, its sizes, and the newest catalogue."""
    newest = Catalogue.load(cut_folders(features)[-1] / "item_table")
    catalogues = [Catalogue.load(features / "cuts" / name / "item_table") for name in cuts]
    material = Material.of(Examples.load(examples), catalogues, newest, system.objectives)
    request, item, cross = (part.shape[1] for part in (material.examples.request, material.items, material.examples.cross))
    heads = tuple(f"{name}: {one.label}" for name, one in system.objectives.items())
    inputs = (request, item, cross, code_sizes(newest))
    sizes = Sizes(*inputs, network.hidden, heads, towers=network.towers, context=network.context, dropout=network.dropout)
    return material, sizes, newest


def calibrated(system: System, model: Ranker, material: Material, queries: NDArray[np.intp]) -> tuple[Scaling, dict[str, float]]:
    """The scaling of each head on these queries, and how good the scaled order is there."""
    logits = predict(model, material, queries)
    at, _ = material.rows_of(queries)
    examples = material.examples
    scaling = scaling_of(tuple(system.objectives.values()), logits, material.judging[at], examples.outcome[at], examples.weight[at])
    a, b = np.array(scaling).T
    scaled = (a * logits + b).astype(np.float32)
    return scaling, judge(material, queries, Heads.of(system.objectives).scores(scaled, examples.seen[at]))
