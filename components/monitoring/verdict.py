"""From shifts to one word: none, drift, or cannot judge; and what is only the season.

A false alarm is a quiet window called drift. Its rate is at most `ALPHA` a window (Holm over all columns, at half that level: 15 of 720
quiet windows were called drift at the whole of it) and is measured on A/A windows in `tests/components/monitoring/test_verdict.py`.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from components.monitoring.sample import TIME, UNIT, Window, same_weekdays
from components.monitoring.shifts import Shift, shifts

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.01  # false alarms a window
LEVEL = ALPHA / 2  # that a window's tests are held to together
LEAST_USERS = 30  # of each window, to judge at all
NONE, DRIFT, UNSURE = "none", "drift", "cannot judge"
EXIT_CODES = {NONE: 0, DRIFT: 2, UNSURE: 3}
Verdict = dict[str, Any]


def judge(reference: Window, current: Window, skipped: frozenset[str] = frozenset()) -> Verdict:
    """The verdict on the current window: word, causes (worst first), season, every test, and the counts of both windows.

    `skipped`: columns that are shown and not tested, because they can only grow.
    """
    then, now = same_weekdays(reference.sample, current.sample)
    told: Verdict = {"alpha": ALPHA, "reference": _counts(reference), "current": _counts(current), "skipped": sorted(skipped)}
    if min(len(then), len(now)) < LEAST_USERS:
        few = f"{len(now)} users now and {len(then)} then on the same weekdays; at least {LEAST_USERS} of each are needed"
        return told | {"verdict": UNSURE, "sentence": f"Cannot judge: {few}.", "causes": [], "season": [], "tests": []}
    aside = skipped | {UNIT, TIME}
    found = shifts(then, now, aside)
    causes = sorted((one for one in found if _is_drift(one)), key=lambda one: (one.adjusted, -one.effect))
    moved = {one.column for one in causes}
    whole = [] if _same_mix(reference.sample, current.sample) else shifts(reference.sample, current.sample, aside)
    season = [one for one in whole if _is_drift(one) and one.column not in moved]
    word = DRIFT if causes else NONE
    return told | {
        "verdict": word,
        "sentence": _sentence(causes, season, len(found)),
        "causes": [asdict(one) for one in causes],
        "season": [asdict(one) for one in season],
        "tests": [asdict(one) for one in found],
    }


def _same_mix(then: "pd.DataFrame", now: "pd.DataFrame") -> bool:
    """Whether the weekdays are mixed alike, so that there is no season to tell apart."""
    shares = [frame[TIME].dt.weekday.value_counts(normalize=True) for frame in (then, now)]
    return bool(shares[0].sub(shares[1], fill_value=0.0).abs().sum() / 2 < 0.05)


def _is_drift(shift: Shift) -> bool:
    return shift.adjusted < LEVEL and shift.counts


def _sentence(causes: list[Shift], season: list[Shift], tests: int) -> str:
    later = f" {len(season)} more differ by the day of the week alone." if season else ""
    if not causes:
        return f"No drift: none of {tests} tests at {ALPHA:g} false alarms a window.{later}"
    named = "; ".join(f"{one.column} ({one.note or f'effect {one.effect:.3f}'}, p {one.adjusted:.2g})" for one in causes[:3])
    more = f" and {len(causes) - 3} more" if len(causes) > 3 else ""
    return f"Drift in {len(causes)} of {tests} tests: {named}{more}.{later}"


def _counts(window: Window) -> dict[str, Any]:
    return {
        "rows": window.rows,
        "users": window.users,
        "sampled": len(window.sample),
        "first": window.first,
        "last": window.last,
        "nulls": {name: count for name, count in window.nulls.items() if count},
    }


def clicked_by_bundle(frame: "pd.DataFrame") -> dict[str, dict[str, float]]:
    """Clicks an answer shown, and its standard error, of each bundle in a frame with `bundle` and `clicked` (0 or 1)."""
    found = {}
    for bundle, clicked in frame.groupby("bundle")["clicked"]:
        rate, count = float(clicked.mean()), len(clicked)
        found[str(bundle)] = {"shown": count, "ctr": rate, "error": (rate * (1 - rate) / max(count, 1)) ** 0.5}
    return found
