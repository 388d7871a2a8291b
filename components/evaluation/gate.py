"""Whether a bundle may be released: one decision, and the one number that made it.

Checks run in order and the first that fails decides.
1. Can these data judge at all? Two users or more, and no impostor (`components/evaluation/impostors.py`) gets through as a candidate.
2. The deciding metric of what users may see (NDCG at an answer's places; amid sessions MRR@20) is ahead of every rival that knows nothing,
   the strongest of them included.
3. The guarded metrics of the same protocol are shown to be not worse than popularity's and the champion's (amid sessions also
   what was had with the last item), by a stated margin.
4. Nothing shows harm beyond that margin where a good mean hides it: the other protocol, known and unknown users, new items.
5. No empty answer, no forbidden item, within size and cost.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.evaluation.compare import CHAMPION, POPULARITY
from components.evaluation.evidence import ALPHA, MARGIN, Difference, holm
from components.evaluation.next_item import TOGETHER
from serving.system import System

ERRORS = 2.0  # standard errors of a paired difference that count as real: one in twenty by chance
SLICE_USERS = 30  # fewer users than this decide nothing
LARGEST_BUNDLE_BYTES = 2 << 30  # what a pod of the serving image may hold
EVERYBODY = "all households"

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One question asked of the metrics."""

    name: str
    passed: bool
    sentence: str  # holds the number
    can_judge: bool = True  # False: the data do not answer it
    smallest_effect: float | None = None  # the smallest true difference it would have seen; None: not a question of size


@dataclass(frozen=True)
class Guarded:
    """One member of a family of comparisons with a rival."""

    protocol: str
    rival: str
    metric: str
    whom: str
    difference: Difference

    @property
    def name(self) -> str:
        return f"{self.metric} {self.protocol} against {self.rival}, {self.whom}"

    def said(self, chance: float, members: int) -> str:
        """The numbers of the comparison: difference, margin, chance after Holm, smallest effect it could have seen."""
        found = self.difference
        seen = found.smallest_seen(ALPHA / members)
        return (
            f"{self.metric} ({self.protocol}, {self.whom}) differs from {self.rival}'s {found.rival:.4f} by {_plus_minus(found)}; margin "
            f"{found.margin:.4f} ({MARGIN:.0%}), p {chance:.3g} after Holm over {members}; it would have seen a difference of {seen:.4f}"
        )


def decide(system: System, metrics: Path, out: Path) -> bool:
    """Judge `metrics` (the evaluate step's folder), write `out/gate.json` (passed, decided_by, sentence, every check) and return whether it
    passed.
    """
    found = json.loads((metrics / "metrics.json").read_text())
    cost = json.loads((metrics / "latency.json").read_text())
    checks = [*_checks(system, found, cost)]
    verdict = write_verdict(checks, out, _strongest(found)) | {
        "champion": found["champion"],
        "champion_unreadable": found.get("champion_unreadable"),
        "bundle": found["bundle"],
        "protocol": found["deciding"],
        "measures": found["measures"],
        "margin": MARGIN,
        "weeks": [found["cut"], *found.get("weeks", {})],
        "quiet_weeks": found.get("quiet_weeks", []),  # nothing happened in them: left out
    }
    (out / "gate.json").write_text(json.dumps(verdict, indent=1, sort_keys=True) + "\n")
    return bool(verdict["passed"])


def write_verdict(checks: Sequence[Check], out: Path, deciding: str = "") -> dict[str, Any]:
    """The verdict of some checks, also as `out/gate.json`: the first that failed decides, else the one named `deciding`, else the first."""
    failed = [check for check in checks if not check.passed]
    decided = failed[0] if failed else next((check for check in checks if check.name == deciding), checks[0])
    outcome = "passed" if not failed else "refused" if decided.can_judge else "cannot judge"
    verdict = {
        "passed": not failed,
        "outcome": outcome,
        "decided_by": decided.name,
        "sentence": f"{outcome.capitalize()}: {decided.sentence}",
        "checks": [asdict(check) for check in checks],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "gate.json").write_text(json.dumps(verdict, indent=1, sort_keys=True) + "\n")
    return verdict


def _checks(system: System, metrics: Metrics, cost: Metrics) -> Iterator[Check]:
    asked = metrics["impostors"]
    if asked["users"] < 2:
        yield _too_few(asked["users"], metrics)
    else:
        yield from _ahead_of_all(metrics)
        yield from _impostors(metrics)
        yield from _not_worse(metrics)
        yield from _no_harm(metrics)
    yield at_most("empty answers", metrics["answer"]["empty"], 0, "users got an empty answer")
    yield at_most("forbidden items", metrics["answer"]["forbidden"], 0, "items that must never be shown were answered")
    yield at_most("size", metrics["bundle_bytes"], LARGEST_BUNDLE_BYTES, "bytes in the bundle")
    yield at_most("cost", cost["cpu_ms_p50"], system.budget.total_ms, "ms of CPU a request, in the middle")


def _too_few(users: int, metrics: Metrics) -> Check:
    days = metrics["judged_days"]
    told = (
        f"{users} user{'s' * (users != 1)} had something in the {days} day{'s' * (days != 1)} after {metrics['cut']} that counts under "
        f"protocol {metrics['deciding']!r}; a comparison takes at least 2: choose another --until, or wait for more users."
    )
    return Check("users to judge by", False, told, can_judge=False)


def _ahead_of_all(metrics: Metrics) -> Iterator[Check]:
    """The deciding metric ahead of each rival that knows nothing: the first it is not ahead of, by name, is told."""
    asked, protocol, measure = metrics["impostors"], metrics["deciding"], metrics["measures"][0]
    ours = asked["candidate"]["value"]
    for rival, found in asked["candidate_against"].items():
        theirs = asked["values"][rival]["value"]
        difference = Difference(found["value"], found["error"], asked["users"], theirs)
        ahead, needed = is_ahead(difference)
        words = "is ahead of" if ahead else "is not clearly ahead of"
        yield Check(
            _against(measure, rival),
            ahead,
            f"{measure.upper()} {ours:.4f} ({protocol}) {words} {_possessive(rival)} {theirs:.4f}: difference {_plus_minus(difference)}, "
            f"needed over {needed:.3g} errors.",
            smallest_effect=difference.smallest_seen(),
        )


def _impostors(metrics: Metrics) -> Iterator[Check]:
    """Each impostor in the candidate's place: one that is ahead of every rival shows that being ahead of them proves nothing here."""
    asked, protocol, measure = metrics["impostors"], metrics["deciding"], metrics["measures"][0].upper()
    for name, against in asked["asked"].items():
        through = all(is_ahead(Difference(d["value"], d["error"], asked["users"], 0.0))[0] for d in against.values())
        worth = asked["values"][name]["value"]
        told = f"{name}, asked as a candidate, has {measure} {worth:.4f} ({protocol}) and is {'ahead of all' if through else 'refused'}"
        yield Check(
            f"impostor: {name}",
            not through,
            told + ("; a gate that lets it through cannot judge on these data: give other days or more of them." if through else "."),
            can_judge=not through,
        )


def is_ahead(difference: Difference) -> tuple[bool, float]:
    """Whether the lead is real, and how many errors it takes: two, more where few users were asked."""
    from scipy.stats import t

    needed = max(ERRORS, float(t.ppf(0.975, max(difference.users - 1, 1))))
    return difference.users > 1 and difference.value > needed * difference.error, needed


def _not_worse(metrics: Metrics) -> Iterator[Check]:
    """The deciding protocol's guarded metrics, each shown to be above the rival's less the margin."""
    protocol = metrics["deciding"]
    for rival in _rivals(metrics):
        weeks = [metrics["protocols"][protocol], *(week[protocol] for week in metrics.get("weeks", {}).values())]
        family = [Guarded(protocol, rival, metric, EVERYBODY, _pooled(weeks, rival, metric)) for metric in metrics["measures"]]
        chances = holm([one.difference.chance_above(-one.difference.margin) for one in family])
        for one, chance in zip(family, chances, strict=True):
            shown = chance < ALPHA
            words = "not worse" if shown else "not shown to be no worse"
            yield Check(
                one.name, shown, f"{one.said(chance, len(family))}: {words}.", smallest_effect=_seen(one.difference, ALPHA / len(family))
            )


def _no_harm(metrics: Metrics) -> Iterator[Check]:
    """Where a good mean hides harm: refused when a metric is shown to be below the rival's by more than the margin."""
    family = [*_harms(metrics)]
    chances = holm([one.difference.chance_below(-one.difference.margin) for one in family])
    for one, chance in zip(family, chances, strict=True):
        harmed = chance < ALPHA
        told = f"{one.said(chance, len(family))}: {'harm is shown' if harmed else 'no harm is shown'}."
        yield Check(one.name, not harmed, told, smallest_effect=_seen(one.difference, ALPHA / len(family)))


def _harms(metrics: Metrics) -> Iterator[Guarded]:
    for rival in _rivals(metrics):
        groups = {EVERYBODY: {name: found for name, found in metrics["protocols"].items() if _guards(metrics, name)}}
        groups |= metrics["slices"] | metrics["cold"]
        for whom, judged in groups.items():
            for protocol, found in judged.items():
                if found["users"] >= SLICE_USERS and rival in found["against"]:
                    for metric in metrics["measures"]:
                        yield Guarded(protocol, rival, metric, whom, Difference.of(found, rival, metric))


def _guards(metrics: Metrics, protocol: str) -> bool:
    """A system that never repeats is not asked what it would repeat; the deciding protocol has its own, stricter check."""
    return bool(protocol != metrics["deciding"] and metrics["deciding"] == "all")


def _pooled(weeks: Sequence[Metrics], rival: str, metric: str) -> Difference:
    """The mean over rolling weeks. Users return, so weeks are not independent: the error is the weeks' mean error, as if they were one."""
    found = [Difference.of(week, rival, metric) for week in weeks if week["users"] > 1 and rival in week["against"]]
    count = max(len(found), 1)
    return Difference(
        sum(one.value for one in found) / count,
        sum(one.error for one in found) / count,
        min((one.users for one in found), default=0),
        sum(one.rival for one in found) / count,
    )


def _rivals(metrics: Metrics) -> list[str]:
    against = metrics["protocols"][metrics["deciding"]]["against"]
    return [POPULARITY, *([TOGETHER] if TOGETHER in against else []), *([CHAMPION] if metrics["champion"] else [])]


def _strongest(metrics: Metrics) -> str:
    """The check that decides when all pass: the lead over the strongest rival."""
    asked = metrics["impostors"]
    rivals = asked.get("candidate_against", {})
    return _against(metrics["measures"][0], max(rivals, key=lambda name: asked["values"][name]["value"])) if rivals else ""


def _against(measure: str, rival: str) -> str:
    return f"{measure} against {rival}"


def at_most(name: str, value: float, limit: float, meaning: str) -> Check:
    """A check that a number does not exceed its limit."""
    return Check(name, value <= limit, f"{value:g} {meaning}, allowed {limit:g}.")


def _seen(difference: Difference, alpha: float) -> float | None:
    seen = difference.smallest_seen(alpha)
    return round(seen, 6) if seen < float("inf") else None


def _possessive(rival: str) -> str:
    return f"{rival}'s" if rival == POPULARITY else f"{rival!r}'s"


def _plus_minus(difference: Difference) -> str:
    return f"{difference.value:+.4f} ± {difference.error:.4f}"
