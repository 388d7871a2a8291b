"""Counters and histograms that gather in plain Python numbers and are poured into Prometheus' own when somebody looks.

An observation of prometheus_client takes a lock and up to fourteen comparisons, with several workers also two writes to mapped files;
a request makes ten. Gathering one is a bisection and two additions. One thread gathers and pours.
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

    __slots__ = ("_bounds", "_child", "_numbers", "_sum")

    def __init__(self, child: Any) -> None:
        self._child, self._bounds = child, list(child._upper_bounds)  # the last is infinite
        self._numbers, self._sum = [0] * len(self._bounds), 0.0

    def observe(self, value: float) -> None:
        self._numbers[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def pour(self) -> None:
        for bucket, number in zip(self._child._buckets, self._numbers, strict=True):
            if number:
                bucket.inc(number)
        if any(self._numbers):
            self._child._sum.inc(self._sum)
            self._numbers, self._sum = [0] * len(self._bounds), 0.0
