"""`shortlist frontier SYSTEM`: what each weighting of the heads brings in a world whose truth is known.

A system's world stands beside its ingest: a function `truth()` that gives the world as its history ends. The champion's lists are made with
other weights, which costs no learning, and the world says exactly what each would bring on average to those who come next.
Shapes: S pages, K positions.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from components.data.video.bundled import FromBundle
from components.data.video.live import SlatePolicy, World
from components.data.video.pages import PageRequests
from components.release.releases import ReleasedBundle
from serving.objectives import Objective
from serving.ranking.heads import Heads
from serving.ranking.scoring import Scoring
from serving.recommender import Recommender
from serving.system import System, UnknownName, named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOURS = 12.0  # whose visits are asked for
OWN = "as the system says"


class NoTruth(ValueError):
    """Nothing can say what a list would have brought."""


class BadWeights(ValueError):
    """Weights that are no numbers, or of heads that there are not."""


@dataclass(frozen=True)
class Brought:
    """What the first pages bring on average under one weighting, each with its standard error over users."""

    name: str
    weights: Mapping[str, float]
    watch_minutes: tuple[float, float]  # a page
    clicks: tuple[float, float]  # a page
    satisfied: tuple[float, float]  # a page: clicks that were liked
    diversity: tuple[float, float]  # chance that two videos of a page are of different categories


def world_of(system: System) -> World:
    """The world that knows. Raises `NoTruth` for a system whose data are what happened and nothing more."""
    module = system.ingest.partition(":")[0]
    try:
        world: World = named(f"{module}:truth")()
    except UnknownName:
        raise NoTruth(
            f"nothing says what another list of {system.name} would have brought: {module} has no truth(), as that of `video` has"
        ) from None
    return world


def weightings(objectives: Mapping[str, Objective]) -> dict[str, dict[str, float]]:
    """The system's own weights; each head alone, twice as heavy, and left out."""
    own = {name: one.weight for name, one in objectives.items()}
    found = {OWN: own}
    for head in own:
        found[f"{head} alone"] = {name: float(name == head) for name in own}
        found[f"{head} twice"] = own | {head: 2 * own[head]}
        if any(weight for name, weight in own.items() if name != head):
            found[f"without {head}"] = own | {head: 0.0}
    return found


def read_weights(text: str, objectives: Mapping[str, Objective]) -> dict[str, float]:
    """ "watch=0.6,click=0.4" as weights of all heads, those not named 0. Raises `BadWeights`."""
    found = dict.fromkeys(objectives, 0.0)
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if name not in found or not 0 <= weight < float("inf"):
            raise BadWeights(
                f"{part!r} is no head's weight: write HEAD=NUMBER, of {', '.join(objectives)}, as {next(iter(objectives))}=0.5"
            )
        found[name] = weight
    if not any(found.values()):
        raise BadWeights(f"{text!r} gives no head a weight above 0: there is nothing to order a list by")
    return found


def weighing(recommender: Recommender, objectives: Mapping[str, Objective], weights: Mapping[str, float]) -> Recommender:
    """The same recommender with other weights of its heads."""
    asked = {name: replace(one, weight=weights[name]) for name, one in objectives.items()}
    other = copy.copy(recommender)
    other.scoring = Scoring(recommender.rankers, Heads.of(asked), recommender.system.light_size)
    return other


def frontier(system: System, world: World, found: ReleasedBundle, asked: Mapping[str, Mapping[str, float]]) -> list[Brought]:
    """What each weighting brings to the next visits."""
    there = world.fork()
    visits = there.visits(HOURS)
    ours = FromBundle.opened(there, system, found)
    return [
        brought(there, visits, replace(ours, recommender=weighing(ours.recommender, system.objectives, weights)), name, weights)
        for name, weights in asked.items()
    ]


def brought(world: World, visits: PageRequests, policy: SlatePolicy, name: str, weights: Mapping[str, float]) -> Brought:
    """What a policy's pages bring, by the truth."""
    rows = policy(visits).rows
    page = world.expected(visits, rows)
    sums = (page.watch_seconds.sum(axis=1) / 60, page.clicks.sum(axis=1), page.satisfied.sum(axis=1), diversity(world.library.label, rows))
    return Brought(name, dict(weights), *(_mean(values, visits.user) for values in sums))


def diversity(label: NDArray[np.integer], rows: NDArray[np.integer]) -> NDArray[np.float64]:
    """(S,) the chance that two different videos of a page (S, K) are of different categories; -1 is no video."""
    shown = rows >= 0
    pairs = shown[:, :, None] & shown[:, None, :] & ~np.eye(rows.shape[1], dtype=bool)
    kinds = label[np.maximum(rows, 0)]
    differ = pairs & (kinds[:, :, None] != kinds[:, None, :])
    return differ.sum(axis=(1, 2)) / np.maximum(pairs.sum(axis=(1, 2)), 1)


def _mean(values: NDArray[np.floating], user: NDArray[np.integer]) -> tuple[float, float]:
    """The mean of pages and its standard error; one user's pages are not independent."""
    _, of = np.unique(user, return_inverse=True)
    off = np.bincount(of, values - values.mean())
    return float(values.mean()), float(np.sqrt((off**2).sum()) / len(values))


def front(found: list[Brought]) -> list[Brought]:
    """Those that no other beats in watch time and diversity both, the longest watched first."""
    best: list[Brought] = []
    for one in sorted(found, key=lambda one: (-one.watch_minutes[0], -one.diversity[0])):
        if not best or one.diversity[0] > best[-1].diversity[0]:
            best.append(one)
    return best


def table(found: list[Brought]) -> Table:
    """A line a weighting; a star on the frontier."""
    best = front(found)
    shown = Table(header_style="bold")
    shown.add_column("", no_wrap=True)
    for name in ("weights", "min. watched a page", "clicks a page", "liked a page", "diversity"):
        shown.add_column(name, justify="left" if name == "weights" else "right")
    for one in found:
        weights = " ".join(f"{name} {weight:g}" for name, weight in one.weights.items())
        cells = (f"{value:.2f} ± {error:.2f}" for value, error in (one.watch_minutes, one.clicks, one.satisfied, one.diversity))
        shown.add_row(f"{one.name}{' *' if one in best else ''}", weights, *cells)
    shown.caption = "* on the frontier: no other is watched longer and more diverse; expected by the truth, with standard errors"
    return shown


def figure(found: list[Brought]) -> "Figure":
    """Watch time against diversity, and against clicks; the frontier joined."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, other in zip(made.subplots(1, 2), ("diversity", "clicks"), strict=True):
        for one in found:
            (x, x_error), (y, y_error) = one.watch_minutes, getattr(one, other)
            axis.errorbar(x, y, y_error, x_error, fmt="s" if one.name == OWN else "o")
            axis.annotate(one.name, (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
        if other == "diversity":
            best = front(found)
            axis.plot([one.watch_minutes[0] for one in best], [one.diversity[0] for one in best], color="grey", linewidth=0.8)
        axis.set(xlabel="minutes watched a page", ylabel="diversity" if other == "diversity" else "clicks a page")
    return made


def save(found: list[Brought], out: Path) -> None:
    """`out`.png and `out`.json."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure(found).savefig(out.with_suffix(".png"), dpi=110)
    out.with_suffix(".json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
