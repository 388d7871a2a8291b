"""What a new bundle must not do while it answers beside the old one, each guard with its chance of a false alarm over the whole rollout.

Errors (of retrieval and ranking, too), empty lists, lower rungs and slow answers are shares of the new bundle's answers, held against the
old bundle's of the same time and a margin; the first item's score by the distance of the two distributions; clicks by user. All may be
looked at at any time (`components/release/sequential.py`), and together they withdraw a bundle that is as good as the old one in at most
`ALPHA` of all rollouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, log

import numpy as np

from components.release.sequential import Rate, distance, rate_fell, share_above, smallest_fall

ALPHA = 0.05  # of all guards together
_CLICKS_ALPHA, _OTHERS_ALPHA = 0.02, 0.005  # the latter six times
DROP = 0.2  # a fall of the click rate by this part is to be found
_MORE_ERRORS, _MORE_EMPTY, _MORE_LOWER = 0.01, 0.005, 0.02  # shares of answers beyond the old bundle's that are borne
_SLOWER = 1.25  # a quantile may be this many times the old bundle's
_MORE_SLOW = {0.95: 0.03, 0.99: 0.01}  # of answers slower than that, beyond what the quantile allows
_SCORES_APART = 0.4  # of all first scores may lie elsewhere
_FEWEST_OLD = 200  # answers of the old bundle that it takes to compare with


@dataclass(frozen=True)
class Histogram:
    """Counts between bounds: `counts[i]` values of at most `bounds[i]` and more than the one before; the last bound is infinite."""

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """By straight lines between bounds; the last finite bound where it lies beyond. 0 of nothing."""
        wanted, below, edges = share * self.total, 0, (0.0, *self.bounds)
        for count, (low, high) in zip(self.counts, pairwise(edges), strict=True):
            if count and below + count >= wanted:
                return low if high == inf else low + (high - low) * (wanted - below) / count
            below += count
        return 0.0

    def above(self, bound: float) -> int:
        return sum(count for count, end in zip(self.counts, self.bounds, strict=True) if end > bound)


@dataclass(frozen=True)
class Answers:
    """What one bundle's answers were, since the rollout began."""

    asked: int = 0
    errors: int = 0  # of asked
    lists: int = 0
    empty: int = 0  # of lists
    lower: int = 0  # of lists
    seconds: Histogram = field(default_factory=Histogram)
    scores: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True)
class Compared:
    """The old bundle and the new one over the same time. `clicks` None: nobody tells of them."""

    old: Answers
    new: Answers
    clicks: tuple[Rate, Rate] | None = None


def breaches(seen: Compared) -> tuple[str, ...]:
    """What the new bundle does that it must not, as sentences; empty when nothing is shown."""
    found = [_worse("errors", seen.old.errors, seen.old.asked, seen.new.errors, seen.new.asked, _MORE_ERRORS)]
    found.append(_worse("empty lists", seen.old.empty, seen.old.lists, seen.new.empty, seen.new.lists, _MORE_EMPTY))
    found.append(_worse("lists of lower rungs", seen.old.lower, seen.old.lists, seen.new.lower, seen.new.lists, _MORE_LOWER))
    found += [_slower(share, seen.old.seconds, seen.new.seconds) for share in _MORE_SLOW]
    found += [_elsewhere(seen.old.scores, seen.new.scores), _clicked_less(seen.clicks)]
    return tuple(sentence for sentence in found if sentence)


def judged(seen: Compared) -> bool:
    """Whether a fall of the click rate by `DROP` would have been found by now, nine times in ten. True where nobody clicks or tells."""
    if seen.clicks is None:
        return True
    old, new = seen.clicks
    if old.lists >= _FEWEST_OLD and old.clicked == 0:
        return True
    return smallest_fall(old, new, DROP, _CLICKS_ALPHA) <= DROP


def _worse(what: str, old_bad: int, old_asked: int, bad: int, asked: int, margin: float) -> str:
    """More than the old bundle's share, taken one answer worse than it was, and a margin; one hardly asked is taken as it was."""
    allowed = margin + (old_bad + 1) / (old_asked + 1) if old_asked >= _FEWEST_OLD else margin + old_bad / max(old_asked, 1)
    if allowed >= 1.0 or not _shown(share_above(bad, asked, allowed)):
        return ""
    return f"{what}: {bad} of {asked} ({bad / asked:.1%}) against {old_bad} of {old_asked}; {allowed:.1%} are borne"


def _slower(share: float, old: Histogram, new: Histogram) -> str:
    if old.total < _FEWEST_OLD or not new.total or old.bounds != new.bounds:
        return ""
    before = old.quantile(share)
    bound = next(end for end in old.bounds if end >= _SLOWER * before)
    if bound == inf:  # the old bundle is slower than anything that is told apart
        return ""
    slow = new.above(bound)
    if not _shown(share_above(slow, new.total, 1.0 - share + _MORE_SLOW[share])):  # no more of the old ones are beyond its quantile
        return ""
    return f"p{share * 100:.0f}: {slow} of {new.total} answers took over {bound * 1e3:g} ms ({before * 1e3:.1f} ms for the old bundle)"


def _elsewhere(old: Histogram, new: Histogram) -> str:
    if old.bounds != new.bounds or not old.bounds:
        return ""
    apart = distance(np.array(old.counts), np.array(new.counts), _OTHERS_ALPHA)
    return f"scores: at least {apart:.0%} of the first items' lie elsewhere" if apart > _SCORES_APART else ""


def _clicked_less(clicks: tuple[Rate, Rate] | None) -> str:
    if clicks is None:
        return ""
    old, new = clicks
    if rate_fell(old, new, DROP) < -log(_CLICKS_ALPHA):
        return ""
    return f"clicks: {new.clicked} of {new.lists} lists ({new.value:.2%}) against {old.clicked} of {old.lists} ({old.value:.2%})"


def _shown(evidence: float) -> bool:
    return evidence >= -log(_OTHERS_ALPHA)


def stated(clicks: Sequence[Rate] | None) -> str:
    """What can be said of the clicks so far."""
    if clicks is None:
        return "clicks are not judged: nobody tells of them"
    old, new = clicks
    least = smallest_fall(old, new, DROP, _CLICKS_ALPHA)
    found = f"a fall by {least:.0%} would be found by now" if least < inf else "too few users for a judgement"
    return f"clicks {new.value:.2%} of {new.lists} lists against {old.value:.2%} of {old.lists}; {found}"
