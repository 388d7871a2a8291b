"""Tests that may be looked at as often as one likes: the chance of a false alarm holds over a whole rollout.

Each gives the logarithm of a likelihood ratio, mixed over what the harm might be, against the best that is no harm. Where there is none it
is 1 on average whenever one stops, so it ever reaches 1 / alpha with a chance of at most alpha (Ville 1939). The mixture sequential test
is Robbins 1970; for comparing two arms that grow while one looks: Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations
Research 70 (2022). The band of a distribution function: Howard, Ramdas, "Sequential estimation of quantiles", Bernoulli 28 (2022).
"""

from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincc, betaln, log_ndtr

_FEWEST = 200.0  # users an arm before means are taken for normal


def share_above(bad: int, asked: int, allowed: float) -> float:
    """Evidence that more than the share `allowed` is bad: exact, mixed evenly over all greater shares."""
    if not 0.0 < allowed < 1.0:
        raise ValueError(f"an allowed share lies between 0 and 1, got {allowed}")
    good = asked - bad
    beyond = float(betaincc(1.0 + bad, 1.0 + good, allowed))
    if beyond <= 0.0:
        return -inf
    return float(betaln(1.0 + bad, 1.0 + good)) + log(beyond) - log(1.0 - allowed) - bad * log(allowed) - good * log(1.0 - allowed)


@dataclass(frozen=True)
class Rate:
    """A share of lists that were clicked. Lists of one user resemble each other, so its error is of sums by user."""

    users: float  # as many that ask alike would tell as much (Kish)
    lists: int
    clicked: int
    squares: float  # of clicked - rate * lists, summed over users

    @classmethod
    def of(cls, users: NDArray[np.float64]) -> "Rate":
        """From lists and clicked lists of each user: (U, 2)."""
        lists, clicked = users.sum(axis=0)
        off = users[:, 1] - users[:, 0] * (clicked / lists if lists else 0.0)
        squares = float(users[:, 0] @ users[:, 0])
        return cls(lists**2 / squares if squares else 0.0, int(lists), int(clicked), float(off @ off))

    @property
    def value(self) -> float:
        return self.clicked / self.lists if self.lists else 0.0

    @property
    def variance(self) -> float:
        """Of `value`, by the delta method."""
        if self.users <= 3:
            return inf
        return self.squares / self.lists**2 * (self.users - 1) / (self.users - 3)  # as wide as Student's, of which it takes the place


def rate_fell(before: Rate, after: Rate, drop: float) -> float:
    """Evidence that the rate `after` is lower, mixed over falls of about the part `drop` of the rate `before` (half-normal)."""
    if not _comparable(before, after):
        return -inf
    return _fell(before.value - after.value, before.variance + after.variance, drop * before.value)


def smallest_fall(before: Rate, after: Rate, drop: float, alpha: float, power: float = 1.2816) -> float:
    """The smallest fall, as a part of the rate before, that would by now be found at `alpha`; `power`: quantile, 1.2816 for nine in ten."""
    if not _comparable(before, after):
        return inf
    variance, scale = before.variance + after.variance, drop * before.value
    needed = brentq(lambda z: _fell(z * sqrt(variance), variance, scale) + log(alpha), 0.0, 100.0)
    return float((needed + power) * sqrt(variance) / before.value)


def _comparable(before: Rate, after: Rate) -> bool:
    return min(before.users, after.users) >= _FEWEST and before.clicked > 0 and before.squares + after.squares > 0


def _fell(fall: float, variance: float, scale: float) -> float:
    """log of 2 sqrt(V / (V + s²)) exp(x² s² / (2 V (V + s²))) Phi(x s / sqrt(V (V + s²))): the normal likelihood mixed over falls > 0."""
    both = variance + scale**2
    at = fall * scale / sqrt(variance * both)
    return log(2.0) + 0.5 * log(variance / both) + 0.5 * at**2 + float(log_ndtr(at))


def band(count: int, alpha: float) -> float:
    """How far an empirical distribution function of `count` values ever lies from the true one, but for a chance of `alpha`."""
    return 0.85 * sqrt((log(log(np.e * count)) + 0.8 * log(1612.0 / alpha)) / count) if count else inf


def distance(before: "np.ndarray", after: "np.ndarray", alpha: float) -> float:
    """The least that two histograms' distribution functions are apart (Kolmogorov), but for a chance of `alpha`; at times below 0."""
    if not before.sum() or not after.sum():
        return -inf
    apart = np.abs(np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()).max()
    return float(apart - band(int(before.sum()), alpha / 2) - band(int(after.sum()), alpha / 2))
