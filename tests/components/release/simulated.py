"""Rollouts in a made-up shop: sticky users who click as they are wont to, two bundles, the controller's own decisions tick by tick."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from components.release.rollout_guards import Answers, Compared, Histogram, breaches, judged
from components.release.rollout_state import ENDED, BundleRef, Rollout, RolloutPolicy, Seen, decide, placed
from components.release.sequential import Rate

OLD, NEW = BundleRef("a" * 64, "1"), BundleRef("b" * 64, "2")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, np.inf)
POLICY = RolloutPolicy(grace_seconds=60.0)
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Behaviour:
    """How a bundle answers."""

    clicks: float = 1.0  # times what users are wont to click
    errors: float = 0.001
    empty: float = 0.001
    lower: float = 0.005
    slower: float = 0.0  # seconds
    scores: float = 0.0  # where first scores lie, away from the old ones


@dataclass
class Shop:
    """Its users, and what came of each bundle's answers."""

    seed: int
    users: int = 12_000
    lists_a_second: float = 50.0
    rate: float = 0.25  # of lists that are clicked
    behaviour: dict[str, Behaviour] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        busy = self.random.gamma(0.7, size=self.users)
        self.busy = busy / busy.sum() * self.lists_a_second
        self.wont = self.random.beta(4 * self.rate, 4 * (1 - self.rate), self.users)
        self.place = self.random.random(self.users) * 100  # of a user on the scale of percents
        self.shown = {digest: np.zeros((self.users, 2)) for digest in self.behaviour}
        self.answers = {digest: Answers() for digest in self.behaviour}

    def pass_time(self, seconds: float, stable: str, beside: str | None, percent: float) -> None:
        lists, taken = self.random.poisson(self.busy * seconds), self.place < percent
        for digest, mine in ((stable, ~taken), (beside, taken)):
            if digest is None or not (lists * mine).any():
                continue
            how, mine_lists = self.behaviour[digest], lists * mine
            clicked = self.random.binomial(mine_lists, np.minimum(1.0, self.wont * how.clicks))
            self.shown[digest] += np.stack([mine_lists, clicked], axis=1)
            self.answers[digest] = self._answered(self.answers[digest], how, int(mine_lists.sum()))

    def _answered(self, before: Answers, how: Behaviour, asked: int) -> Answers:
        errors = int(self.random.binomial(asked, how.errors))
        lists = asked - errors
        seconds = self.random.lognormal(-4.0, 0.5, lists) + how.slower
        scores = self.random.normal(how.scores, 0.3, lists)
        return Answers(
            before.asked + asked,
            before.errors + errors,
            before.lists + lists,
            before.empty + int(self.random.binomial(lists, how.empty)),
            before.lower + int(self.random.binomial(lists, how.lower)),
            added(before.seconds, seconds, BOUNDS),
            added(before.scores, scores, (*np.linspace(-1, 1, 21), np.inf)),
        )

    def compared(self, old: str, new: str) -> Compared:
        first, second = (Rate.of(self.shown[digest]) for digest in (old, new))
        return Compared(self.answers[old], self.answers[new], (first, second))


def added(before: Histogram, values: np.ndarray, bounds: tuple[float, ...]) -> Histogram:
    counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds))
    return Histogram(bounds, tuple(int(one) for one in counts + np.array(before.counts or (0,) * len(bounds))))


def rolled_out(shop: Shop, policy: RolloutPolicy = POLICY, tick_seconds: float = 60.0, longest: float = 200_000.0) -> tuple[Rollout, float]:
    """The rollout's end, and how many seconds it took. The cluster does at once what it is told."""
    rollout, now = Rollout("one", NEW, OLD, 0.0, entered=0.0), 0.0
    while rollout.phase not in ENDED and now < longest:
        now += tick_seconds
        stands = placed(rollout)
        assert stands.stable is not None
        shop.pass_time(tick_seconds, stands.stable.digest, stands.beside and stands.beside.digest, stands.percent)
        found = shop.compared(OLD.digest, NEW.digest)
        seen = Seen(
            staged=True,
            ready=True,
            percent=stands.percent,
            smoke="",
            answers=found.new.asked,
            judged=rollout.percent == policy.steps[-1] and judged(found),
            breaches=breaches(found) if rollout.phase == "canary" else (),
            stable_is_new=stands.stable == NEW,
            crowned=stands.stable == NEW,
            restored=True,
        )
        rollout = decide(rollout, seen, policy, now)
    return rollout, now


def shop_of(seed: int, new: Behaviour, **more: float) -> Shop:
    return Shop(seed, behaviour={OLD.digest: Behaviour(), NEW.digest: new}, **more)  # type: ignore[arg-type]


def withdrawn_of(count: int, new: Behaviour, **more: float) -> list[str]:
    """Reasons of those of `count` rollouts that were withdrawn; every one comes to an end."""
    reasons = []
    for seed in range(count):
        rollout, _ = rolled_out(shop_of(seed, new, **more))
        assert rollout.phase in ENDED
        if rollout.phase == "refused":
            reasons.append(rollout.reason)
    return reasons


def worse(**changes: float) -> Behaviour:
    return replace(Behaviour(), **changes)
