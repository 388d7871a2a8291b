"""The rollout controller: looks, decides, writes the decision down, makes the cluster and the registry like it; again and again.

shortlist rollout control shop

What is decided is `components/release/rollout_state.py`. Everything after the record is written is told from the record alone and does
nothing where it is done already, so a controller that is killed anywhere is taken up by the next.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from components.release.rollout_guards import Compared, breaches, judged, stated
from components.release.rollout_record import Conflict, RolloutLine, RolloutRecord
from components.release.rollout_state import ENDED, REVOCABLE, BundleRef, Placed, Rollout, RolloutPolicy, Seen, decide, placed, told, undo
from components.release.services import ROLES, Standing, Variant


class Refused(ValueError):
    """The bundle is not what it is said to be: no trying again helps."""


class Unreachable(ValueError):
    """Something the controller asks does not answer; it is asked again."""


class Cluster(Protocol):
    """The InferenceServices and the record. Methods raise `Unreachable`."""

    def record(self) -> RolloutRecord: ...
    def write(self, record: RolloutRecord) -> RolloutRecord:
        """Raises `Conflict` where somebody wrote since `record.revision`."""

    def standing(self, role: str) -> Standing: ...
    def place(self, role: str, wanted: Placed) -> None: ...
    def event(self, line: RolloutLine, warning: bool) -> None:
        """Once for each line's number, however often it is called."""


@dataclass(frozen=True)
class Named:
    """Whom the registry's aliases name."""

    champion: BundleRef | None
    challenger: BundleRef | None


class Names(Protocol):
    """The registry. Methods raise `Unreachable`."""

    def named(self) -> Named: ...
    def crown(self, new: BundleRef) -> None: ...
    def restore(self, old: BundleRef | None, new: BundleRef, why: str) -> None:
        """Champion is the old one again, the new one no challenger, and its version says why."""


class Staging(Protocol):
    """Brings a bundle to where pods fetch it."""

    def stage(self, ref: BundleRef) -> None:
        """Raises `Refused`, `Unreachable`."""


Figures = Callable[[str, str, float], Compared]  # old and new digest, since when; raises `Unreachable`
Smoke = Callable[[str], str]  # digest; what is wrong, or nothing


@dataclass
class Controller:
    """One system's. `tick` is everything."""

    cluster: Cluster
    names: Names
    staging: Staging
    figures: Figures
    smoke: Smoke
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)
    ask_names_seconds: float = 15.0  # between two looks at the registry, unless it is said to have changed
    problem: str = ""  # what did not answer at the last tick
    compared: Compared | None = None
    _named: Named | None = None
    _named_at: float = 0.0

    def tick(self, now: float) -> RolloutRecord:
        """Look once, decide, and do it. Raises `Unreachable` where not even the record can be had."""
        self.problem = ""
        record = self.cluster.record()
        stands = self._stands()
        named = self._look(record, now)
        try:
            record = self._begun(record, stands, named, now)
            if record.rollout is not None:
                seen = self._seen(record, stands, named)
                record = self._written(record, decide(record.rollout, seen, self.policy, now), now)
        except Conflict:  # a person was faster: the next tick knows
            return record
        self._do(record, stands, named)
        return self._tell(record)

    def _stands(self) -> dict[str, Standing] | None:
        try:
            return {role: self.cluster.standing(role) for role in ROLES}
        except Unreachable as problem:
            self.problem = str(problem)
            return None

    def _look(self, record: RolloutRecord, now: float) -> Named | None:
        """The aliases, at most every so often. None: the registry does not answer."""
        fresh = now - self._named_at < self.ask_names_seconds and record.poked <= self._named_at
        busy = record.rollout is not None and record.rollout.phase in ("promote", "withdraw")
        if fresh and not busy and self._named is not None:
            return self._named
        try:
            self._named, self._named_at = self.names.named(), now
        except Unreachable as problem:
            self.problem = str(problem)
            return None
        return self._named

    def _begun(self, record: RolloutRecord, stands: dict[str, Standing] | None, named: Named | None, now: float) -> RolloutRecord:
        """The record with a new rollout where one is wanted and none goes on."""
        current = record.rollout
        if named is None or stands is None or (current is not None and current.phase not in (*ENDED, "warm")):
            return record
        stable = _stable(stands)
        wanted, by = _wanted(named, stable, record.start)
        if wanted is None:
            return record
        if current is not None and current.phase == "warm":
            if current.old is not None and wanted.digest == current.old.digest and by == "champion":
                return self._write(record.decided(undo(current, now), now, abort="", start=""))
            current = msgspec.structs.replace(current, phase="done")  # its old bundle makes room for the next one
            record = record.decided(current, now)
        name = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dt%H%M%S")
        new = msgspec.structs.replace(wanted, rollout=name)
        return self._write(record.decided(Rollout(name, new, stable, now, entered=now, asked_by=by), now, abort="", start=""))

    def _seen(self, record: RolloutRecord, stands: dict[str, Standing] | None, named: Named | None) -> Seen:
        rollout = record.rollout
        assert rollout is not None
        seen = self._registry_says(rollout, named, record.abort)
        if stands is not None:
            seen = _places(rollout, stands, seen)
        if rollout.phase == "stage" and not seen.abort:
            seen = self._staged(rollout, seen)
        elif rollout.phase == "smoke":
            seen = replace(seen, smoke=self.smoke(rollout.new.digest))
        elif rollout.phase == "canary":
            seen = self._judged(rollout, seen)
        return seen

    def _registry_says(self, rollout: Rollout, named: Named | None, abort: str) -> Seen:
        if named is None:
            return Seen(abort=abort)
        new, champion = rollout.new.digest, named.champion.digest if named.champion else ""
        challenger = named.challenger.digest if named.challenger else ""
        if not abort and rollout.phase in REVOCABLE and rollout.asked_by != "person" and new not in (champion, challenger):
            abort = f"the alias {rollout.asked_by} no longer names version {rollout.new.version}"
        back = rollout.old is None or champion in (rollout.old.digest, "")  # "": its version was deleted meanwhile
        undone = bool(rollout.reason) and rollout.old is not None and challenger == rollout.old.digest  # and still a challenger
        return Seen(abort=abort, crowned=champion == new and not undone, restored=back and challenger != new)

    def _staged(self, rollout: Rollout, seen: Seen) -> Seen:
        try:
            self.staging.stage(rollout.new)
        except Refused as problem:
            return replace(seen, abort=str(problem))
        except Unreachable as problem:
            self.problem = str(problem)
            return seen
        return replace(seen, staged=True)

    def _judged(self, rollout: Rollout, seen: Seen) -> Seen:
        assert rollout.old is not None
        try:
            self.compared = found = self.figures(rollout.old.digest, rollout.new.digest, rollout.began)
        except Unreachable as problem:
            self.problem = str(problem)
            return replace(seen, blind=True)
        last = rollout.percent == self.policy.steps[-1]
        return replace(seen, answers=found.new.asked, breaches=breaches(found), judged=last and judged(found))

    def _written(self, record: RolloutRecord, after: Rollout, now: float) -> RolloutRecord:
        if after == record.rollout:
            return record
        return self._write(record.decided(after, now, abort="" if after.phase in ("withdraw", *ENDED) else record.abort))

    def _write(self, record: RolloutRecord) -> RolloutRecord:
        return self.cluster.write(record)

    def _do(self, record: RolloutRecord, stands: dict[str, Standing] | None, named: Named | None) -> None:
        """Make the services and the registry like the record says. What does not answer is done at the next tick."""
        rollout = record.rollout
        if rollout is None or stands is None:
            return
        wanted = placed(rollout)
        try:
            for role in ROLES:
                if wanted.stable is not None and _differs(stands[role], wanted):
                    self.cluster.place(role, wanted)
            if rollout.phase == "promote" and _promoted(rollout, stands):
                self._crown(rollout)
            if rollout.phase == "withdraw" and named is not None:
                self.names.restore(rollout.old, rollout.new, rollout.reason)
        except Unreachable as problem:
            self.problem = str(problem)

    def _crown(self, rollout: Rollout) -> None:
        if rollout.reason and rollout.old is not None:  # a promotion is undone: what is undone must not begin again
            self.names.restore(rollout.new, rollout.old, rollout.reason)
        else:
            self.names.crown(rollout.new)

    def _tell(self, record: RolloutRecord) -> RolloutRecord:
        try:
            for line in record.untold:
                self.cluster.event(line, warning=line.phase in ("withdraw", "refused"))
            if record.untold:
                return self._write(msgspec.structs.replace(record, told=record.untold[-1].number + 1))
        except (Unreachable, Conflict) as problem:  # told at the next tick
            self.problem = self.problem or str(problem)
        return record

    def status(self, record: RolloutRecord) -> str:
        """A sentence or two for a person."""
        if record.rollout is None:
            return "No rollout yet."
        said = f"Rollout {record.rollout.id}: {told(record.rollout)}."
        if record.rollout.phase == "canary" and self.compared is not None:
            said += f" {stated(self.compared.clicks).capitalize()}."
        return said + (f" Does not answer: {self.problem}." if self.problem else "")


def _stable(stands: dict[str, Standing]) -> BundleRef | None:
    """The bundle that both services answer from."""
    found = stands["retrieval"].stable
    return found.bundle if found else None


def _wanted(named: Named, stable: BundleRef | None, start: str) -> tuple[BundleRef | None, str]:
    """Which bundle is to be rolled out, and who says so."""
    if start and (stable is None or start != stable.digest):
        return BundleRef(start), "person"
    answering = stable.digest if stable else ""
    if named.champion is not None and named.champion.digest != answering:
        return named.champion, "champion"
    if stable is not None and named.challenger is not None and named.challenger.digest != answering:
        return named.challenger, "challenger"
    return None, ""


def _places(rollout: Rollout, stands: dict[str, Standing], seen: Seen) -> Seen:
    """What both services say of the new bundle alike."""
    other = rollout.old if rollout.phase in ("promote", "warm", "done") else rollout.new
    mine = [_variant(one, rollout.new.digest) for one in stands.values()]
    beside = [_variant(one, other.digest) if other else None for one in stands.values()]
    shares = {0 if one is None else (one.percent if one.percent == one.weight else None) for one in beside}
    return replace(
        seen,
        ready=all(one is not None and one.ready for one in mine),
        percent=shares.pop() if len(shares) == 1 else None,
        stable_is_new=_promoted(rollout, stands),
    )


def _promoted(rollout: Rollout, stands: dict[str, Standing]) -> bool:
    return all(one.stable is not None and one.stable.bundle.digest == rollout.new.digest and one.stable.ready for one in stands.values())


def _variant(one: Standing, digest: str) -> Variant | None:
    return next((variant for variant in one.beside if variant.bundle.digest == digest), None)


def _differs(one: Standing, wanted: Placed) -> bool:
    assert wanted.stable is not None
    if one.stable is None or one.stable.bundle.digest != wanted.stable.digest:
        return True
    beside = [(variant.bundle.digest, variant.percent) for variant in one.beside]
    return beside != ([(wanted.beside.digest, wanted.percent)] if wanted.beside else [])
