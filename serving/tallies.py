"""Counters and histograms that gather in plain Python numbers and are poured into Prometheus' own, once a second and when somebody looks.

An observation of prometheus_client takes a lock and up to fourteen comparisons, with several workers also two writes to mapped files;
a request makes ten. Gathering one is to append it to a list: between requests caches go cold, so what is done for many at once costs
a tenth. One thread gathers and pours.
"""

from bisect import bisect_left
from typing import Any


class Count:
    """A counter's child."""

    __slots__ = ("_child", "_number")

    def __init__(self, child: Any) -> None:
        self._child, self._number = child, 0

    def inc(self, number: int = 1) -> None:
        self._number += number

    def pour(self) -> None:
        if self._number:
            self._child.inc(self._number)
            self._number = 0


class Tally:
    """A histogram's child. prometheus_client has no public way to add many observations at once: its own values are added to."""

    __slots__ = ("_bounds", "_child", "_values", "observe")

    def __init__(self, child: Any) -> None:
        self._child, self._bounds = child, list(child._upper_bounds)  # the last is infinite
        self._values: list[float] = []
        self.observe = self._values.append

    def pour(self) -> None:
        if not self._values:
            return
        numbers = [0] * len(self._bounds)
        for value in self._values:
            numbers[bisect_left(self._bounds, value)] += 1
        for bucket, number in zip(self._child._buckets, numbers, strict=True):
            if number:
                bucket.inc(number)
        self._child._sum.inc(sum(self._values))
        self._values.clear()
