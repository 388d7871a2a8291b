"""What fits each kind of source: the twins of `serving/retrieval/sources.py`.

Most are counted at each cut on its own: a function `fit`. One may learn along the cuts: a class whose `advance` goes from each to the next
and gives the users' vectors. A source of one's own ("module:Class") brings its `fit` as a static method of its class.
Shapes: U users, D dimensions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.cut import Cut
from components.retrieval import arrivals, buy_again, category_promotion, followed, linear, sessions, trending, two_tower
from components.start import Start
from components.together import ALONE, Together
from serving.retrieval.sources import source_class
from serving.system import SourceSpec


class Fit(Protocol):
    """Counts one source at one cut."""

    def __call__(self, cut: Cut, spec: SourceSpec, folder: Path, fast: bool) -> None:
        """Write to `folder` what the source's `load` reads, from nothing at or after `cut.users.cut_day`. `fast`: a rougher one will do."""
        ...


class Learner(Protocol):
    """Learns one source along the cuts, oldest first."""

    losses: list[float]  # the last epoch's mean at each cut so far

    def __init__(self, spec: SourceSpec, fast: bool, seed: int, start: Start | None = None, together: Together = ALONE) -> None: ...

    def advance(self, cut: Cut, folder: Path, snapshot: Path) -> NDArray[np.float32] | None:
        """Learn the history before `cut`; write the source to `folder`, the weights to `snapshot`; (U, D) user vectors at the cut.

        Of several processes (`together`) the first alone writes, and the others give None.
        """
        ...


FITS: Mapping[str, Fit] = {
    "arrivals": arrivals.fit,
    "buy_again": buy_again.fit,
    "linear": linear.fit,
    "category_promotion": category_promotion.fit,
    "trending": trending.fit,
    "sessions": sessions.fit,
    "followed": followed.fit,
}
LEARNERS: Mapping[str, type[Learner]] = {"two_tower": two_tower.Advancing}


class UnfittableSource(ValueError):
    """A system names a source that nothing here fits."""


def fit_of(kind: str) -> Fit:
    """What counts a kind. Raises `UnfittableSource`; of one's own also what `source_class` raises."""
    if kind in FITS:
        return FITS[kind]
    fit: Fit | None = getattr(source_class(kind), "fit", None) if ":" in kind else None
    if fit is None:
        step = (
            "give its class a static method fit(cut, spec, folder, fast)" if ":" in kind else "add its fit to components/retrieval/twins.py"
        )
        raise UnfittableSource(f"source {kind!r} has no fit: known are {', '.join(sorted([*FITS, *LEARNERS]))}; {step}")
    return fit
