"""The controller over a cluster and a registry in memory: whoever dies where, the rollout comes to the end it should."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

import msgspec
import pytest

from components.release.rollout import Controller, Named, Refused, Unreachable
from components.release.rollout_guards import Answers, Compared, Histogram
from components.release.rollout_record import Conflict, RolloutLine, RolloutRecord
from components.release.rollout_state import BundleRef, Placed, RolloutPolicy
from components.release.services import ROLES, Standing, Variant

OLD, NEW, THIRD = (BundleRef(letter * 64, version) for letter, version in (("a", "1"), ("b", "2"), ("c", "3")))
BOUNDS = (0.1, 0.2, inf)  # seconds
POLICY = RolloutPolicy(step_seconds=20.0, step_requests=50, ready_seconds=100.0, smoke_seconds=20.0, drain_seconds=4.0, grace_seconds=60.0)


class Died(Exception):
    """The controller was killed here."""


@dataclass
class Shelfless:
    """Everything outside the controller. Each call may be the one at which it dies, before the call or after it."""

    placed: dict[str, Placed] = field(default_factory=lambda: {role: Placed(replace_rollout(OLD)) for role in ROLES})
    kept: RolloutRecord = field(default_factory=RolloutRecord)
    events: dict[int, str] = field(default_factory=dict)
    champion: BundleRef | None = OLD
    challenger: BundleRef | None = NEW
    unready: frozenset[str] = frozenset()  # digests that never load
    refused: frozenset[str] = frozenset()  # digests that are forged
    bad_smoke: str = ""
    bad: Callable[[Answers], Answers] = lambda answers: answers
    answered: int = 0
    blind: bool = False
    away: bool = False  # Kubernetes does not answer
    why: str = ""
    dies_at: int = -1
    calls: int = 0
    shares: list[int] = field(default_factory=list)

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.dies_at:
            raise Died

    def record(self) -> RolloutRecord:
        self._call()
        return self.kept

    def write(self, record: RolloutRecord) -> RolloutRecord:
        self._call()
        if record.revision != self.kept.revision:
            raise Conflict("somebody was faster")
        self.kept = msgspec.structs.replace(record, revision=str(int(record.revision or 0) + 1))
        self._call()
        return self.kept

    def standing(self, role: str) -> Standing:
        self._call()
        if self.away:
            raise Unreachable("Kubernetes does not answer")
        now = self.placed[role]
        stable = Variant(now.stable, 100 - now.percent, True, 100 - now.percent) if now.stable else None
        if now.beside is None:
            return Standing(stable)
        ready = now.beside.digest not in self.unready
        return Standing(stable, (Variant(now.beside, now.percent, ready, now.percent if ready else 0),))

    def place(self, role: str, wanted: Placed) -> None:
        self._call()
        self.placed[role] = wanted
        self._call()

    def event(self, line: RolloutLine, warning: bool) -> None:
        self._call()
        assert self.events.setdefault(line.number, line.sentence) == line.sentence
        self._call()

    def named(self) -> Named:
        self._call()
        return Named(self.champion, self.challenger)

    def crown(self, new: BundleRef) -> None:
        self._call()
        self.champion = new
        self._call()

    def restore(self, old: BundleRef | None, new: BundleRef, why: str) -> None:
        self._call()
        self.champion, self.why = old, why
        if self.challenger is not None and self.challenger.digest == new.digest:
            self.challenger = None
        self._call()

    def stage(self, ref: BundleRef) -> None:
        self._call()
        if ref.digest in self.refused:
            raise Refused("it is bundle sha256:f00")

    def smoke(self, digest: str) -> str:
        self._call()
        return self.bad_smoke

    def figures(self, old: str, new: str, since: float) -> Compared:
        self._call()
        if self.blind:
            raise Unreachable("Prometheus does not answer")
        self.answered += 20
        good = Answers(self.answered * 10, 0, self.answered * 10, 0, 0, Histogram(BOUNDS, (self.answered * 10, 0, 0)))
        return Compared(good, self.bad(replace(good, asked=self.answered, lists=self.answered)))

    def mixed(self) -> bool:
        """Whether a user could get retrieval of one bundle and ranking of another that is not there."""
        one, two = (self.placed[role] for role in ROLES)
        here = [{ref.digest for ref in (now.stable, now.beside) if ref} for now in (one, two)]
        return not (here[0] & here[1])


def replace_rollout(ref: BundleRef) -> BundleRef:
    return msgspec.structs.replace(ref, rollout="r0")


def gone(world: Shelfless, seconds: float = 400.0, now: float = 1000.0, until: Callable[[], bool] = lambda: False) -> float:
    """Ticks every two seconds by controllers that are started again where they die; the time it is then."""
    controller, ends = made(world), now + seconds
    while now < ends and not until():
        now += 2.0
        try:
            controller.tick(now)
        except Died:
            controller = made(world)
        except Unreachable:
            pass
        assert not world.mixed()
        world.shares.append(world.placed["ranking"].percent)
    return now


def made(world: Shelfless) -> Controller:
    return Controller(world, world, world, world.figures, world.smoke, POLICY, ask_names_seconds=4.0)


def ended(world: Shelfless) -> str:
    assert world.kept.rollout is not None
    return world.kept.rollout.phase


def stand(world: Shelfless) -> set[str]:
    return {now.stable.digest[0] + (now.beside.digest[0] if now.beside else "") for now in world.placed.values() if now.stable}


def test_a_challenger_goes_through_the_steps_and_is_champion_then() -> None:
    world = Shelfless()
    gone(world)
    assert ended(world) == "done"
    assert stand(world) == {"b"}
    assert world.champion is not None
    assert world.champion.digest == NEW.digest
    assert [share for at, share in enumerate(world.shares) if at == 0 or world.shares[at - 1] != share] == [0, 5, 25, 50, 0]
    assert [world.events[number] for number in sorted(world.events)] == [line.sentence for line in world.kept.lines]
    assert made(world).status(world.kept) == f"Rollout {world.kept.rollout.id}: bundle bbbbbbbbbbbb answers."  # type: ignore[union-attr]


def test_the_old_bundle_stays_warm_for_a_while_and_a_promotion_is_undone_at_once() -> None:
    world = Shelfless()
    now = gone(world, until=lambda: world.kept.rollout is not None and world.kept.rollout.phase == "warm")
    assert stand(world) == {"ba"}
    world.champion = OLD  # what `shortlist rollback` does, or a hand in MLflow's page
    gone(world, 30.0, now)
    assert stand(world) == {"ab"}
    assert max(world.shares[-15:]) == 0
    assert ended(world) == "warm"


WRONG: dict[str, Callable[[Shelfless], None]] = {
    "forged": lambda world: setattr(world, "refused", frozenset({NEW.digest})),
    "does not load": lambda world: setattr(world, "unready", frozenset({NEW.digest})),
    "smoke": lambda world: setattr(world, "bad_smoke", "an empty list"),
    "errors": lambda world: setattr(world, "bad", lambda seen: replace(seen, errors=seen.asked // 4)),
    "slow": lambda world: setattr(world, "bad", lambda seen: replace(seen, seconds=Histogram(BOUNDS, (0, 0, seen.asked)))),
    "blind": lambda world: setattr(world, "blind", True),
}


@pytest.mark.parametrize("by", ["challenger", "champion"])
@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_what_is_wrong_is_withdrawn_the_aliases_are_as_before_and_the_reason_is_kept(wrong: str, by: str) -> None:
    world = Shelfless()
    if by == "champion":
        world.champion, world.challenger = NEW, None
    WRONG[wrong](world)
    gone(world)
    assert ended(world) == "refused"
    assert stand(world) == {"a"}
    assert (world.champion and world.champion.digest, world.challenger) == (OLD.digest, None)
    assert world.why == world.kept.rollout.reason != ""  # type: ignore[union-attr]
    assert max(world.shares) <= 5
    before = world.kept
    gone(world, 60.0, 2000.0)
    assert world.kept.rollout == before.rollout  # and it is not tried again by itself


@pytest.mark.parametrize("wrong", ["nothing", "errors"])
def test_a_controller_that_dies_at_any_call_is_taken_up_by_the_next(wrong: str) -> None:
    whole = Shelfless()
    WRONG.get(wrong, lambda _: None)(whole)
    gone(whole)
    for dies_at in range(1, whole.calls, 7):
        world = Shelfless(dies_at=dies_at)
        WRONG.get(wrong, lambda _: None)(world)
        gone(world, 500.0)
        assert (ended(world), stand(world)) == (ended(whole), stand(whole)), dies_at
        assert sorted(world.events.values()) == sorted(line.sentence for line in world.kept.lines)
        assert [share for share in world.shares if share not in (0, 5, 25, 50)] == []


def test_the_first_champion_of_all_is_placed_without_steps() -> None:
    world = Shelfless(placed={role: Placed(None) for role in ROLES}, champion=NEW, challenger=NEW)
    gone(world, 30.0)
    assert (ended(world), stand(world)) == ("done", {"b"})


def test_a_moved_alias_ends_a_rollout_and_begins_the_next() -> None:
    world = Shelfless()
    now = gone(world, until=lambda: max(world.shares, default=0) == 25)
    world.challenger = THIRD
    gone(world, 400.0, now)
    assert (ended(world), stand(world)) == ("done", {"c"})
    assert any("no longer names" in line.sentence for line in world.kept.lines)


def test_a_person_aborts_and_starts_and_the_aliases_follow() -> None:
    world = Shelfless()
    now = gone(world, until=lambda: max(world.shares, default=0) == 5)
    world.kept = msgspec.structs.replace(world.kept, abort="too slow for my taste", revision="77")
    now = gone(world, 40.0, now)
    assert (ended(world), stand(world), world.challenger) == ("refused", {"a"}, None)
    assert "too slow for my taste" in world.why
    world.kept = msgspec.structs.replace(world.kept, start=THIRD.digest)
    gone(world, 400.0, now)
    assert (ended(world), stand(world)) == ("done", {"c"})


def test_while_kubernetes_is_away_nothing_is_decided_and_afterwards_it_goes_on() -> None:
    world = Shelfless()
    now = gone(world, until=lambda: max(world.shares, default=0) == 5)
    world.away = True
    controller = made(world)
    controller.tick(now + 2.0)
    assert "Kubernetes does not answer" in controller.status(world.kept)
    now = gone(world, 60.0, now)
    assert stand(world) == {"ab"}
    world.away = False
    gone(world, 400.0, now)
    assert ended(world) == "done"
