"""A rollout as a state machine: dark -> smoke -> 5 -> 25 -> 50 -> promoted, or withdrawn. Nothing here asks or writes anything.

    stage -> dark -> smoke -> canary 5 -> canary 25 -> canary 50 -> promote -> warm -> done
      \\________\\_______\\__________\\___________\\___________\\-> withdraw -> refused

`decide` says from what is known and what was seen what is known next; `placed` says of any state which bundles stand where. Whoever writes
down the state first and then makes the world like `placed` may be killed anywhere: the next one goes on from what was written.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

Phase = Literal["stage", "dark", "smoke", "canary", "promote", "warm", "done", "withdraw", "refused"]
ENDED: tuple[Phase, ...] = ("done", "refused")
REVOCABLE: tuple[Phase, ...] = ("stage", "dark", "smoke", "canary")  # the old bundle still is the one that counts


class BundleRef(msgspec.Struct, frozen=True):
    """A bundle, and the registry's version of it."""

    digest: str  # hexadecimal
    version: str = ""
    rollout: str = ""  # id of the one that brought it here


class RolloutPolicy(msgspec.Struct, frozen=True):
    """How fast a rollout may go, and how long anything may take."""

    steps: tuple[int, ...] = (5, 25, 50)  # percent of the users
    step_seconds: float = 600.0  # each step's shortest time,
    step_requests: int = 500  # and the fewest answers of the new bundle in it
    ready_seconds: float = 900.0  # for staging; for loading; for a step to be taken up
    smoke_seconds: float = 120.0
    blind_seconds: float = 120.0  # without figures while users see the new bundle
    drain_seconds: float = 15.0  # at 0 % before the pods of a withdrawn bundle go
    judge_seconds: float = 86_400.0  # that the last step waits for clicks enough to judge by
    grace_seconds: float = 86_400.0  # that the old bundle stays warm after a promotion


class Rollout(msgspec.Struct, frozen=True):
    """What is known of one rollout. Times are seconds since 1970."""

    id: str
    new: BundleRef
    old: BundleRef | None  # None: nothing answered before
    began: float
    phase: Phase = "stage"
    percent: int = 0
    entered: float = 0.0  # when the phase, or the step, was decided
    held: float = 0.0  # since when it has been seen to hold; 0: not yet
    answers_before: int = 0  # of the new bundle when the step began to hold
    blind_since: float = 0.0
    paused: bool = False
    asked_by: str = "challenger"  # "champion", "challenger" or "person"
    reason: str = ""  # why it was withdrawn
    loaded: bool = True  # what is withdrawn had pods, which drain; False: it was never proven, and no pod may fetch it


@dataclass(frozen=True)
class Seen:
    """What an observer found. Defaults: nothing yet."""

    staged: bool = False  # the bundle lies where pods fetch it, proven
    ready: bool = False  # pods of the new bundle are there, for retrieval and for ranking
    percent: int | None = (
        None  # share of the one that is no stable, by status and routes of both services; None: they differ or are unknown
    )
    smoke: str | None = None  # None: not tried; "": passed; else what is wrong
    answers: int = 0  # of the new bundle since the rollout began
    judged: bool = False  # a fall of the click rate that matters would have been found by now
    blind: bool = False  # there are no figures
    breaches: tuple[str, ...] = ()
    abort: str = ""  # a person's reason, or a moved alias
    stable_is_new: bool = False  # both services answer from the new bundle
    crowned: bool = False  # the registry's champion is the new bundle
    restored: bool = False  # the registry's champion is the old one, and the new one is no challenger


@dataclass(frozen=True)
class Placed:
    """Which bundle is stable, and which stands beside it at how many percent; the same for retrieval and ranking."""

    stable: BundleRef | None
    beside: BundleRef | None = None
    percent: int = 0


def placed(rollout: Rollout) -> Placed:
    """Where the bundles are to stand."""
    old, new = rollout.old, rollout.new
    if rollout.phase in ("promote", "warm"):
        return Placed(new, old)
    if rollout.phase == "done":
        return Placed(new)
    if rollout.phase in ("stage", "refused") or (rollout.phase == "withdraw" and not rollout.loaded):
        return Placed(old)
    return Placed(old, new, rollout.percent if rollout.phase == "canary" else 0)


def decide(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: float) -> Rollout:
    """What comes next; the same rollout where nothing does."""
    if rollout.phase in ENDED:
        return rollout
    rollout = _sighted(rollout, seen, now)
    if rollout.phase in REVOCABLE:
        if why := _fault(rollout, seen, policy, now):
            return _enter(rollout, "withdraw", now, reason=why, percent=0, paused=False, loaded=rollout.phase != "stage")
        if rollout.paused:
            return rollout
    return _NEXT[rollout.phase](rollout, seen, policy, now)


def undo(rollout: Rollout, now: float) -> Rollout:
    """The rollout that takes a promotion back at once: the old bundle is still warm. Raises `ValueError` where it is not."""
    if rollout.phase != "warm" or rollout.old is None:
        raise ValueError(
            f"rollout {rollout.id} is {rollout.phase}: only within the grace time after a promotion is the old bundle still warm"
        )
    return Rollout(f"{rollout.id}-undo", rollout.old, rollout.new, now, "promote", entered=now, asked_by="person", reason="undone")


def told(rollout: Rollout) -> str:
    """The state as a sentence."""
    new, old = rollout.new.digest[:12], rollout.old.digest[:12] if rollout.old else "nothing"
    stands = {
        "stage": f"bundle {new} is being brought to where pods fetch it",
        "dark": f"bundle {new} is loading beside {old}, at 0 %",
        "smoke": f"bundle {new} has loaded and is asked by nobody but us",
        "canary": f"bundle {new} is to answer {rollout.percent} % of the users, {old} the others"
        + ("" if rollout.held else "; not yet seen to"),
        "promote": f"bundle {new} takes the place of {old}",
        "warm": f"bundle {new} answers; {old} stays warm",
        "done": f"bundle {new} answers",
        "withdraw": f"bundle {new} is withdrawn ({rollout.reason}); {old} answers",
        "refused": f"bundle {new} was withdrawn ({rollout.reason}); {old} answers",
    }
    return stands[rollout.phase] + ("; paused" if rollout.paused else "")


def _sighted(rollout: Rollout, seen: Seen, now: float) -> Rollout:
    """Since when there have been no figures."""
    since = (rollout.blind_since or now) if seen.blind and rollout.phase == "canary" else 0.0
    return rollout if since == rollout.blind_since else msgspec.structs.replace(rollout, blind_since=since)


def _fault(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: float) -> str:
    """Why the new bundle has to go; empty when it may stay."""
    if seen.abort:
        return seen.abort
    if seen.breaches:
        return "; ".join(seen.breaches)
    if rollout.blind_since and now - rollout.blind_since >= policy.blind_seconds:
        return f"no figures for {now - rollout.blind_since:.0f} s"
    waited = now - rollout.entered
    if rollout.phase == "stage" and waited >= policy.ready_seconds:
        return f"the bundle could not be staged within {waited:.0f} s"
    if rollout.phase == "dark" and waited >= policy.ready_seconds:
        return f"its pods were not ready after {waited:.0f} s"
    if rollout.phase == "smoke" and waited >= policy.smoke_seconds:
        return f"smoke: {seen.smoke or 'it could not be asked'}, for {waited:.0f} s"
    if rollout.phase == "canary" and not rollout.held and waited >= policy.ready_seconds:
        return f"{rollout.percent} % were not taken up within {waited:.0f} s"
    return ""


def _enter(rollout: Rollout, phase: Phase, now: float, **more: object) -> Rollout:
    return msgspec.structs.replace(rollout, phase=phase, entered=now, held=0.0, **more)


def _stage(rollout: Rollout, seen: Seen, _: RolloutPolicy, now: float) -> Rollout:
    if not seen.staged:
        return rollout
    return _enter(rollout, "dark" if rollout.old else "promote", now)


def _dark(rollout: Rollout, seen: Seen, _: RolloutPolicy, now: float) -> Rollout:
    return _enter(rollout, "smoke", now) if seen.ready and seen.percent == 0 else rollout


def _smoke(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: float) -> Rollout:
    return _enter(rollout, "canary", now, percent=policy.steps[0]) if seen.smoke == "" else rollout


def _canary(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: float) -> Rollout:
    if not seen.ready or seen.percent != rollout.percent:  # what was counted so far is no whole step
        return _enter(rollout, "canary", now) if rollout.held else rollout
    if not rollout.held:
        return msgspec.structs.replace(rollout, held=now, answers_before=seen.answers)
    if seen.blind or now - rollout.held < policy.step_seconds or seen.answers - rollout.answers_before < policy.step_requests:
        return rollout
    further = [percent for percent in policy.steps if percent > rollout.percent]
    if further:
        return _enter(rollout, "canary", now, percent=further[0])
    enough = seen.judged or now - rollout.held >= policy.judge_seconds
    return _enter(rollout, "promote", now, percent=0) if enough else rollout


def _promote(rollout: Rollout, seen: Seen, _: RolloutPolicy, now: float) -> Rollout:
    if not (seen.stable_is_new and seen.crowned):
        return rollout
    return _enter(rollout, "warm" if rollout.old else "done", now)


def _warm(rollout: Rollout, _: Seen, policy: RolloutPolicy, now: float) -> Rollout:
    return _enter(rollout, "done", now) if now - rollout.entered >= policy.grace_seconds else rollout


def _withdraw(rollout: Rollout, seen: Seen, policy: RolloutPolicy, now: float) -> Rollout:
    if seen.percent != 0:
        return rollout
    if not rollout.held:
        return msgspec.structs.replace(rollout, held=now)
    drained = now - rollout.held >= policy.drain_seconds
    return _enter(rollout, "refused", now) if drained and seen.restored else rollout


_NEXT = {
    "stage": _stage, "dark": _dark, "smoke": _smoke, "canary": _canary, "promote": _promote, "warm": _warm, "withdraw": _withdraw,
}  # fmt: skip
