"""Tables with room at their end: what is posted is written behind the release's rows, and nothing else is touched."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 256  # rows of room to begin with; doubled when they are full

Array = NDArray[Any]


class Room:
    """One table: the release's rows, copied once when the first is posted, and posted ones behind them. `axis`: of the rows.

    A view that was given out before stays as it was: its rows are not moved, and only a posted item that is posted again changes.
    """

    def __init__(self, base: Array, axis: int = 0) -> None:
        self._base, self._axis = base, axis
        self._count = base.shape[axis]
        self._table: Array | None = None

    def put(self, first: int, rows: Array) -> Array:
        """The table up to the end of `rows` (n, ...), which are the posted ones from the `first` on."""
        begin = self._count + first
        end = begin + rows.shape[self._axis]
        table = self._roomy(end, self._kind(rows))
        table[self._at(slice(begin, end))] = rows
        return table[self._at(slice(0, end))]

    def _kind(self, rows: Array) -> np.dtype[Any]:
        """The table's type; wide enough where the new ids are longer than those there are."""
        had = self._base if self._table is None else self._table
        return np.result_type(had, rows) if had.dtype.kind == "S" else had.dtype

    def _roomy(self, end: int, kind: np.dtype[Any]) -> Array:
        """The table, with room up to `end` for rows of that kind: ids may be longer than those before."""
        had = self._table
        if had is not None and had.shape[self._axis] >= end and had.dtype == kind:
            return had
        shape = list(self._base.shape)
        shape[self._axis] = self._count + max(_LEAST, 2 * (end - self._count))
        self._table = table = np.zeros(shape, kind)
        if had is None:
            table[self._at(slice(0, self._count))] = self._base
        else:
            table[self._at(slice(0, had.shape[self._axis]))] = had[self._at(slice(0, shape[self._axis]))]
        return table

    def _at(self, rows: slice) -> tuple[slice, ...]:
        return (slice(None),) * self._axis + (rows,)
