"""One column then and now: how far it moved, and how likely so far by chance.

| kind       | test                                                            | effect                                   |
|------------|-----------------------------------------------------------------|------------------------------------------|
| numeric    | Kolmogorov-Smirnov, two samples                                 | largest difference of distribution functions |
| category   | chi-square over categories seen 5 times or more, others together; a category gone: exact | total variation      |
| nulls      | Fisher's exact test of the share of missing values              | difference of shares                     |
| embedding  | maximum mean discrepancy by random Fourier features (Rahimi, Recht 2007), permuted | distance over its spread by chance |

A shift counts when it is both improbable (after Holm over all columns) and larger than `LEAST`: with enough rows everything is improbable.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["numeric", "category", "nulls", "embedding"]
LEAST = {"numeric": 0.05, "category": 0.03, "nulls": 0.01, "embedding": 0.0}
PERMUTATIONS = 199  # of the embedding test; a gamma distribution with their mean and variance gives the tail (Gretton et al. 2009)
EMBEDDED = 600  # rows of a sample that the embedding test looks at
WAVES = 32  # random Fourier features
OFTEN = 5  # a category seen more rarely, then and now together, is counted with the others


@dataclass(frozen=True)
class Shift:
    """What became of one column."""

    column: str
    kind: Kind
    chance: float  # p
    effect: float
    note: str = ""
    adjusted: float = 1.0  # p after Holm over the whole family

    @property
    def counts(self) -> bool:
        return self.effect >= LEAST[self.kind]


def shifts(then: "pd.DataFrame", now: "pd.DataFrame", skipped: frozenset[str] = frozenset()) -> list[Shift]:
    """Every column that both samples hold, tested; adjusted by Holm over all of them together."""
    from components.evaluation.evidence import holm

    found = [shift for column in then.columns if column in now.columns and column not in skipped for shift in _tested(column, then, now)]
    return [replace(shift, adjusted=chance) for shift, chance in zip(found, holm([shift.chance for shift in found]), strict=True)]


def _tested(column: str, then: "pd.DataFrame", now: "pd.DataFrame") -> Iterator[Shift]:
    before, after = then[column], now[column]
    if _is_vectors(before) or _is_vectors(after):
        yield embedding(column, _matrix(before), _matrix(after))
        return
    if before.isna().any() or after.isna().any():
        yield nulls(column, int(before.isna().sum()), len(before), int(after.isna().sum()), len(after))
    before, after = before.dropna(), after.dropna()
    if len(before) < 2 or len(after) < 2:
        return
    if before.dtype.kind in "fiub":
        yield numeric(column, before.to_numpy(np.float64), after.to_numpy(np.float64))
    else:
        yield category(column, *(side.astype(str).to_numpy().astype(np.str_) for side in (before, after)))


def numeric(column: str, then: NDArray[np.float64], now: NDArray[np.float64]) -> Shift:
    """Whether two samples of numbers are of one distribution."""
    from scipy.stats import ks_2samp

    found = ks_2samp(then, now, method="exact" if max(len(then), len(now)) <= 1000 else "asymp")
    return Shift(column, "numeric", float(found.pvalue), float(found.statistic), f"mean {then.mean():.4g} then, {now.mean():.4g} now")


def category(column: str, then: NDArray[np.str_], now: NDArray[np.str_]) -> Shift:
    """Whether two samples of categories are of one distribution, and whether a category of before is gone."""
    from scipy.stats import chi2_contingency

    names = np.unique(np.concatenate((then, now)))
    counts = np.stack([(sample[:, None] == names[None]).sum(0) if len(names) <= 50 else _counts(sample, names) for sample in (then, now)])
    variation = float(np.abs(counts[0] / len(then) - counts[1] / len(now)).sum() / 2)
    often = counts.sum(0) >= OFTEN
    table = np.column_stack((counts[:, often], counts[:, ~often].sum(1)))
    table = table[:, table.sum(0) > 0]
    chance = float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0
    left = counts[1] == 0
    lost = counts[0] * left / len(then)
    gone = int(lost.argmax()) if len(names) else 0
    if not len(names) or lost[gone] == 0:
        return Shift(column, "category", chance, variation)
    vanished = min(1.0, 2 * float((1 - (counts[0][gone] - 0.5) / len(then)) ** len(now)) * max(int(left.sum()), 1))
    note = f"{str(names[gone])!r} is gone: {lost[gone]:.1%} of the rows then"
    return Shift(column, "category", min(1.0, 2 * min(chance, vanished)), variation, note)


def _counts(sample: NDArray[np.str_], names: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(names, sample), minlength=len(names))


def nulls(column: str, empty_then: int, then: int, empty_now: int, now: int) -> Shift:
    """Whether values are missing more or less often."""
    from scipy.stats import fisher_exact

    chance = float(fisher_exact([[empty_then, then - empty_then], [empty_now, now - empty_now]]).pvalue)
    before, after = empty_then / max(then, 1), empty_now / max(now, 1)
    return Shift(f"{column} (nulls)", "nulls", chance, abs(after - before), f"{before:.1%} then, {after:.1%} now")


def embedding(column: str, then: NDArray[np.float64], now: NDArray[np.float64], seed: int = 0) -> Shift:
    """Whether two clouds of vectors are of one distribution, however it turned: means alone would not see a rotation about the mean."""
    from scipy.stats import gamma

    if min(len(then), len(now)) < 2:
        return Shift(column, "embedding", 1.0, 0.0, "too few vectors")
    random = np.random.default_rng(seed)
    both = np.concatenate((then[:EMBEDDED], now[:EMBEDDED]))  # (N, D)
    both = (both - both.mean(0)) / np.maximum(both.std(0), 1e-12)
    waves = random.normal(size=(both.shape[1], WAVES)) / np.sqrt(both.shape[1])
    angles = both @ waves
    features = np.concatenate((np.cos(angles), np.sin(angles)), axis=1)  # (N, 2 WAVES)
    members = min(len(then), EMBEDDED)
    sides = np.full(len(both), -1.0 / (len(both) - members))
    sides[:members] = 1.0 / members
    order = random.permuted(np.tile(sides, (PERMUTATIONS, 1)), axis=1)  # (P, N)
    distance = float(((sides @ features) ** 2).sum())
    by_chance = ((order @ features) ** 2).sum(1)  # (P,)
    mean, spread = float(by_chance.mean()), float(by_chance.std())
    if spread < 1e-12:  # all vectors alike
        return Shift(column, "embedding", 1.0, 0.0)
    chance = float(gamma.sf(distance, (mean / spread) ** 2, scale=spread**2 / mean))
    return Shift(column, "embedding", chance, (distance - mean) / spread)


def _is_vectors(column: "pd.Series") -> bool:
    return column.dtype.kind == "O" and len(column) > 0 and isinstance(column.iloc[0], list | np.ndarray)


def _matrix(column: "pd.Series") -> NDArray[np.float64]:
    return np.stack([np.asarray(vector, np.float64) for vector in column.dropna()]) if column.notna().any() else np.empty((0, 1))
