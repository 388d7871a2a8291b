"""What a paired difference can and cannot show: not worse by more than a margin, worse by more than it, how small an effect it sees.

One-sided Student tests on means of paired differences; families by Holm (1979, Scand. J. Statist. 6:65). Not worse is a non-inferiority
test (Piaggio et al. 2012, JAMA 308:2594): passing it takes evidence, so a week too small to see harm does not pass as harmless.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALPHA = 0.05  # chance of a wrong word, over a whole family
POWER = 0.8  # with which the smallest visible effect would have been seen
MARGIN = 0.05  # share of the rival's value that a candidate may lose and still count as not worse
LEAST_MARGIN = 0.001  # of a metric whose value is near zero


@dataclass(frozen=True)
class Difference:
    """Candidate less rival over the same users."""

    value: float
    error: float  # standard error; infinite for one user
    users: int
    rival: float  # the rival's own value

    @classmethod
    def of(cls, judged: Mapping[str, Any], rival: str, metric: str) -> "Difference":
        """From the numbers `components.evaluation.compare.compare` wrote."""
        found = judged["against"][rival][metric]
        error = math.inf if found["error"] is None else float(found["error"])
        return cls(float(found["value"]), error, int(judged["users"]), float(judged["recommenders"][rival][metric]["value"]))

    @property
    def margin(self) -> float:
        return max(MARGIN * abs(self.rival), LEAST_MARGIN)

    def chance_above(self, bound: float) -> float:
        """p of "the true difference is at most `bound`": small when it is shown to be above."""
        from scipy.stats import t

        if self.users < 2 or not math.isfinite(self.error):
            return 1.0
        if self.error == 0:
            return 0.0 if self.value > bound else 1.0
        return float(t.sf((self.value - bound) / self.error, self.users - 1))

    def chance_below(self, bound: float) -> float:
        """p of "the true difference is at least `bound`": small when it is shown to be below."""
        mirrored = Difference(-self.value, self.error, self.users, self.rival)
        return mirrored.chance_above(-bound)

    def smallest_seen(self, alpha: float = ALPHA) -> float:
        """The smallest true difference that would be seen with `POWER` at `alpha`; infinite where no difference could be."""
        from scipy.stats import t

        if self.users < 2 or not math.isfinite(self.error):
            return math.inf
        return float((t.isf(alpha, self.users - 1) + t.isf(1 - POWER, self.users - 1)) * self.error)


def holm(chances: Sequence[float]) -> list[float]:
    """The p of each member of a family, adjusted so that any below alpha may be believed together."""
    order = sorted(range(len(chances)), key=lambda at: chances[at])
    adjusted, highest = [1.0] * len(chances), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[at]))
        adjusted[at] = highest
    return adjusted
