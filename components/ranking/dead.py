"""Features that were the same for everything learnt from: rankers cannot read them, and a person may want to know.

Shapes: N examples, F features of a side.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.ranking.examples import Examples
from serving.bundle.catalogue import Catalogue

Names = Mapping[str, Sequence[str]]  # by side, in the order rankers read them


def dead_features(examples: Examples, catalogues: Sequence[Catalogue], names: Names) -> dict[str, list[str]]:
    """By side ("request", "item", "cross") the names of what never varied; of items those that some example is of.

    `catalogues`: by number of the cut. One that is known of some and not of others does vary.
    """
    cut = np.repeat(examples.cut, examples.size)  # (N,)
    items = [np.asarray(known.features)[np.unique(examples.item[cut == number])] for number, known in enumerate(catalogues)]
    columns = {"request": examples.request, "item": np.concatenate(items), "cross": examples.cross}
    return {side: [name for name, alive in zip(names[side], varies(read), strict=True) if not alive] for side, read in columns.items()}


def varies(columns: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(F,) which columns of (N, F) hold two different values; not known counts as one."""
    if not len(columns):
        return np.zeros(columns.shape[1], bool)
    first = columns[:1]
    return np.asarray(((columns != first) & ~(np.isnan(columns) & np.isnan(first))).any(axis=0))


def sentence(features: Names, dead: Names) -> str:
    """What a person reads at the end of a run; empty where all of them say something."""
    found = [name for side in dead.values() for name in side]
    if not found:
        return ""
    count = sum(len(side) for side in features.values())
    return f"{len(found)} of {count} features were the same throughout and were not learnt from: {', '.join(found)}."
