"""The door to the loops compiled from `serving/native/`; without them their callers do the same, to the bit.

The callers are `serving/scan.py` and `serving/sources/linear.py`. `native()` tells whether the loops run; `use(False)` switches them off
(tests and measurements compare both). Shapes: I items, D dimensions, M items with neighbours, K neighbours, H voters.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_compiled: ModuleType | None
try:
    from serving.native import _kernel as _compiled  # type: ignore[attr-defined, no-redef]
except ImportError:  # no compiler where it was installed: numpy does the work
    _compiled = None

_active: ModuleType | None = _compiled


class NoKernel(RuntimeError):
    """The native kernel was asked for where it is not installed."""


def native() -> bool:
    """Whether the compiled loops run."""
    return _active is not None


def use(wanted: bool) -> None:
    """Switch the compiled loops on or off. Raises `NoKernel` when they are wanted and were never compiled."""
    global _active
    if wanted and _compiled is None:
        raise NoKernel("the native kernel is not installed: install a C compiler and the package again, or do without it")
    _active = _compiled if wanted else None


def dots(table: NDArray[np.int8], vector: NDArray[np.int8], out: NDArray[np.float32]) -> bool:
    """Exact integer products of every row (I, D) with `vector` (D,) into `out` (I,). False: not done, numpy must."""
    if _active is None or not table.flags.c_contiguous:
        return False
    _active.dots(table, vector, out)
    return True


def votes(neighbours: NDArray[Any], weights: NDArray[np.int16], voters: NDArray[np.int32], strengths: NDArray[np.float32]) -> Any:
    """(M,) float64 sums of weight x strength over the neighbours (M, K) of the voters (H,); None: not done, numpy must."""
    if _active is None:
        return None
    sums = np.empty(len(weights), np.float64)
    _active.votes(neighbours, weights, np.ascontiguousarray(voters, np.int32), np.ascontiguousarray(strengths, np.float32), sums)
    return sums
