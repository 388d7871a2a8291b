"""The loop on a made platform whose truth is known: learn its history, then let it live under what was learnt, and under others.

make demo-video

Two tables. Exact: what each policy's first page brings on average to those who come in the first hours, by the truth. Live: a day of visits
on a running server, which is told of every event before it is asked for the next page; the others meet the same visitors and the same
luck.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from components.data.video.bundled import FromBundle
from components.data.video.live import SlatePolicy, Step
from components.data.video.pages import Expectation, PageRequests
from components.data.video.remote import OverHttp
from components.data.video_world import SMALL, ByChance, Oracle, TrendingNow, World, write
from components.release.releases import ReleasedBundle, released
from pipelines.demo import serving
from pipelines.loop import run_loop
from serving.state.user_state import StateTable
from serving.system import load_system

SYSTEM = "video"
BOUNCE_SECONDS = 30.0  # a visit with less watched is one
RESAMPLES = 1000  # of users, for the intervals
RIVAL, BEST = "what trends", "oracle"
STEPS = 6  # of four hours: a day


@dataclass(frozen=True)
class Visited:
    """Sums of each visit under one policy. Shapes: S visits, in the same order under every policy."""

    user: NDArray[np.int32]  # (S,)
    watch_seconds: NDArray[np.float32]  # (S,)
    clicks: NDArray[np.float32]  # (S,) on home pages
    impressions: NDArray[np.float32]  # (S,)
    minutes: NDArray[np.float32]  # (S,) how long the visit was; NaN: not asked

    @classmethod
    def of_steps(cls, steps: Sequence[Step]) -> "Visited":
        def joined(name: str) -> NDArray[np.float32]:
            return np.concatenate([np.asarray(getattr(step, name), np.float32) for step in steps])

        user = np.concatenate([step.user for step in steps])
        return cls(user, joined("watch_seconds"), joined("home_clicks"), joined("impressions"), joined("seconds") / np.float32(60))

    @classmethod
    def expected(cls, visits: PageRequests, page: Expectation) -> "Visited":
        sums = page.watch_seconds.sum(axis=1), page.clicks.sum(axis=1), page.impressions.sum(axis=1)
        return cls(visits.user, *sums, np.full(len(visits), np.nan, np.float32))


def demo(home: Path = Path(".shortlist"), seed: int = 0) -> None:
    """Make the small world, learn it, measure what was learnt against the truth. Everything it makes lies under `home`."""
    console, began = Console(), time.monotonic()
    console.rule("A platform of 2,000 users and 5,000 videos lives four weeks")
    world = write(home / "video_tables", SMALL, seed)
    console.rule("Learning it")
    run_loop(SYSTEM, home / "video_tables", "", True, seed, home, refit=True)
    found = released(SYSTEM, home)
    console.rule("What the first page brings")
    console.print(compared(exactly(world, found), "Expected by the truth: one page, users as known at the cut"))
    console.rule("A day on a running server")
    console.print(compared(lived(world, found, home), "Live: whole visits"))
    console.rule(f"{time.monotonic() - began:.0f} seconds")


def exactly(world: World, found: ReleasedBundle) -> dict[str, Visited]:
    """The exact expectation of the first pages of the next visits, by policy; each source alone among them."""
    system, there = load_system(SYSTEM), world.fork()
    visits = there.visits(12.0)
    ours = FromBundle.opened(there, system, found)
    policies: dict[str, SlatePolicy] = {"video": ours}
    policies |= {f"  {kind} alone": FromBundle(there, ours.recommender, ours.states, kind) for kind in system.kinds}
    policies |= {RIVAL: TrendingNow(there), "random": ByChance(there), BEST: Oracle(there)}
    return {name: Visited.expected(visits, there.expected(visits, policy(visits).rows)) for name, policy in policies.items()}


def lived(world: World, found: ReleasedBundle, home: Path, steps: int = STEPS) -> dict[str, Visited]:
    """A day of whole visits under each policy; ours over HTTP."""
    cut = datetime.fromtimestamp(StateTable.load(found.users).cut_day * 86_400, UTC)
    measured = {}
    with serving(SYSTEM, found.bundle, found.users, home / "demo", cut) as address:
        there = world.fork()
        remote = OverHttp(there, address, uploaded=there.there)
        measured["video"] = Visited.of_steps([there.step(remote, heard=remote.tell) for _ in range(steps)])
        remote.close()
    for name, policy in ((RIVAL, TrendingNow), ("random", ByChance), (BEST, Oracle)):
        there = world.fork()
        measured[name] = Visited.of_steps([there.step(policy(there)) for _ in range(steps)])
    return measured


def compared(measured: Mapping[str, Visited], title: str) -> Table:
    """A line a policy: watch time with its lead over trending, click-through, bounces, the share of the oracle's watch time."""
    rival, best = measured[RIVAL], measured[BEST]
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("watched", "against trending", "of the oracle", "clicks an impression", "bounces"):
        table.add_column(name, justify="right")
    for name, found in measured.items():
        lead = "" if found is rival else _interval(found, rival)
        bounces = "" if np.isnan(found.minutes).any() else f"{np.mean(found.watch_seconds < BOUNCE_SECONDS):.0%}"
        table.add_row(
            name,
            f"{found.watch_seconds.mean() / 60:.1f} min",
            lead,
            f"{found.watch_seconds.sum() / best.watch_seconds.sum():.0%}",
            f"{found.clicks.sum() / found.impressions.sum():.3f}",
            bounces,
        )
    table.caption = f"{len(rival.user):,} visits of {len(np.unique(rival.user)):,} users; intervals of 95 %, users drawn again"
    return table


def _interval(found: Visited, rival: Visited) -> str:
    low, middle, high = lead(found, rival)
    return f"{middle:+.0%} ({low:+.0%} to {high:+.0%})"


def lead(found: Visited, rival: Visited, seed: int = 0) -> tuple[float, float, float]:
    """How much longer is watched than under the rival, as a share of it: the ends of the 95 % interval and between them the value.

    Users are drawn again with all their visits, which are not independent.
    """
    users, of = np.unique(rival.user, return_inverse=True)
    ours, theirs = (np.bincount(of, one.watch_seconds, minlength=len(users)) for one in (found, rival))
    drawn = np.random.default_rng(seed).integers(0, len(users), (RESAMPLES, len(users)))
    ratios = ours[drawn].sum(axis=1) / theirs[drawn].sum(axis=1) - 1
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(ours.sum() / theirs.sum() - 1), float(high)


if __name__ == "__main__":
    typer.run(demo)
