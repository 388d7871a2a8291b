"""Prometheus metrics named by bundle, gathered in plain numbers and flushed into Prometheus' own once a second and when somebody looks."""

import asyncio
import os
import shutil
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from serving.native import kernel
from serving.query import Answer

_SHARED = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # read when prometheus_client reads it; other packages set it later (Feast)
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
_DAYS = (1 / 24, 3 / 24, 6 / 24, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_SCORES = tuple(step / 10 for step in range(-10, 11))
_ROOM_BYTES = 8 << 20  # a worker's shared numbers: one file of 1 MB a kind
_FLUSH_SECONDS = 1.0  # what one worker gathers is kept this long, and then known to the others


# An observation of prometheus_client takes a lock and up to fourteen comparisons, with several workers also two writes to mapped files;
# a request makes ten. Gathering one is to append it to a list: between requests caches go cold, so what is done for many at once costs
# a tenth. One thread gathers and flushes.


class BufferedCounter:
    """A counter's child."""

    __slots__ = ("_child", "_number")

    def __init__(self, child: Any) -> None:
        self._child, self._number = child, 0

    def inc(self, number: int = 1) -> None:
        self._number += number

    def flush(self) -> None:
        if self._number:
            self._child.inc(self._number)
            self._number = 0


class BufferedHistogram:
    """A histogram's child. prometheus_client has no public way to add many observations at once: its own values are added to."""

    __slots__ = ("_bounds", "_child", "_values", "observe")

    def __init__(self, child: Any) -> None:
        self._child, self._bounds = child, list(child._upper_bounds)  # the last is infinite
        self._values: list[float] = []
        self.observe = self._values.append

    def flush(self) -> None:
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


def check_room() -> None:
    """Raises `OSError` where the folder of the numbers that workers share has no room for this one's: to make them there would end it."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "") if _SHARED else ""
    if folder and shutil.disk_usage(folder).free < _ROOM_BYTES:
        raise OSError(f"no room for this worker's metrics in {folder}: free {_ROOM_BYTES >> 20} MB, or set TMPDIR")


def keep_room() -> None:
    """Give the numbers this worker shares all of their room on the disk: a write into a map that a full disk cannot hold ends the process.

    Raises `OSError` where there is none.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "") if _SHARED else ""
    for path in Path(folder).glob(f"*_{os.getpid()}.db") if folder else ():
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                raise OSError(f"no room for this worker's metrics in {folder} ({error.strerror}): free some, or set TMPDIR") from error


class Metrics:
    """The counters of one worker; several workers add theirs up through PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self, bundle: str) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        more: dict[str, Any] = {"registry": self.registry, "namespace": "shortlist"}
        label = bundle.removeprefix("sha256:")[:12]
        self._gathered: list[BufferedCounter | BufferedHistogram] = []
        requests = Counter("requests", "answers by route and status", ["bundle", "route", "status"], **more)
        rungs = Counter("rung", "lists by the rung of the ladder that made them", ["bundle", "rung"], **more)
        stages = Histogram("stage_seconds", "time of each stage of a request", ["bundle", "stage"], buckets=_SECONDS, **more)
        self._requests = _Children(requests, label, self._counted)
        self._rungs = _Children(rungs, label, self._counted)
        self._stages = _Children(stages, label, self._tallied)
        latency = Histogram("request_seconds", "from arrival to the answer", ["bundle"], buckets=_SECONDS, **more)
        waited = Histogram("queue_seconds", "from arrival to the engine", ["bundle"], buckets=_SECONDS, **more)
        score = Histogram("score", "score of the first item", ["bundle"], buckets=_SCORES, **more)
        self.latency, self.waited, self._score = (self._tallied(one.labels(label)) for one in (latency, waited, score))
        events = Counter("events", "events by what became of them", ["bundle", "outcome"], **more)
        self._events = _Children(events, label, self._counted)
        empty = Counter("empty_lists", "answers without an item", ["bundle"], **more)
        shed = Counter("shed", "requests sent to a lower rung because too many waited", ["bundle"], **more)
        self._empty, self.shed = self._counted(empty.labels(label)), self._counted(shed.labels(label))
        plain = Counter("plain", "parts of answers (reasons, arrange, exposure...) that failed and were plain", ["bundle", "part"], **more)
        self._plain = _Children(plain, label, self._counted)
        ages = Histogram("feature_age_days", "of users' rows in Feast's online store, as read", ["bundle"], buckets=_DAYS, **more)
        rowless = Counter("features_missing", "reads of Feast's online store that found no row of the user", ["bundle"], **more)
        self.feature_age, self.features_missing = self._tallied(ages.labels(label)), self._counted(rowless.labels(label))
        alone = Counter("rates_counted_alone", "calls counted by this machine, Redis being down", ["bundle"], **more)
        self.counted_alone = self._counted(alone.labels(label))
        self._caches = _Children(
            Gauge("cache", "look-ups of the caches", ["bundle", "cache", "outcome"], multiprocess_mode="livesum", **more), label
        )
        open_ = Gauge("breaker_open", "1 while a dependency is not asked", ["bundle", "dependency"], multiprocess_mode="livemax", **more)
        self._open = _Children(open_, label)
        self._answers: list[tuple[dict[str, str] | None, float | None, dict[str, float]]] = []
        self._watched: tuple[Callable[[], Mapping[str, Mapping[str, int]]], Callable[[], Mapping[str, str]]] | None = None
        self.behind = Gauge(
            "events_behind", "acknowledged events not yet in the states", ["bundle"], multiprocess_mode="livemostrecent", **more
        ).labels(label)
        kept = Gauge(
            "exposures", "answers by what became of their exposure record", ["bundle", "outcome"], multiprocess_mode="livesum", **more
        )
        self._exposures = _Children(kept, label)
        self._exposed: Callable[[], Mapping[str, int]] = dict
        self.release_refused = Gauge(
            "release_refused", "1 while the newest release is not what is answered from", ["bundle"], multiprocess_mode="livemax", **more
        ).labels(label)
        info = Gauge("bundle_info", "1 for the bundle served", ["bundle", "digest", "kernel"], multiprocess_mode="livemax", **more)
        info.labels(label, bundle, kernel_name()).set(1)

    def answered(self, answer: Answer) -> None:
        """BufferedCounter a list: its rung, stages, first score, and whether it is empty."""
        self._answers.append((answer.degraded, answer.items[0].score if answer.items else None, answer.stage_ms))

    def _counted(self, child: Any) -> BufferedCounter:
        self._gathered.append(made := BufferedCounter(child))
        return made

    def _tallied(self, child: Any) -> BufferedHistogram:
        self._gathered.append(made := BufferedHistogram(child))
        return made

    def flush(self) -> None:
        """Make what was gathered visible to whoever reads the metrics, here or in another worker."""
        for degraded, score, stage_ms in self._answers:
            self._rungs[degraded["rung"] if degraded is not None else "full",].inc()
            for stage, milliseconds in stage_ms.items():
                self._stages[stage,].observe(milliseconds / 1e3)
            if score is None:
                self._empty.inc()
            else:
                self._score.observe(score)
        self._answers.clear()
        for outcome, number in self._exposed().items():
            self._exposures[outcome,].set(number)
        for one in self._gathered:
            one.flush()

    async def keep_flushing(self) -> None:
        """For ever: other workers may be asked for our counts, and what is gathered takes room."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._look()
            self.flush()

    def responded(self, route: str, status: int) -> None:
        self._requests[route, status].inc()

    def plain(self, part: str) -> None:
        """A part of an answer failed and was plain instead."""
        self._plain[part,].inc()

    def events(self, outcome: str, count: int) -> None:
        if count:
            self._events[outcome,].inc(count)

    def watch(self, caches: Callable[[], Mapping[str, Mapping[str, int]]], breakers: Callable[[], Mapping[str, str]]) -> None:
        """Read these counters and breaker states whenever the metrics are asked for."""
        self._watched = (caches, breakers)

    def watch_exposures(self, counters: Callable[[], Mapping[str, int]]) -> None:
        """Read these counts of the exposure log whenever the metrics are flushed."""
        self._exposed = counters

    def _look(self) -> None:
        if self._watched is not None:
            caches, breakers = self._watched
            for name, counters in caches().items():
                for outcome, number in counters.items():
                    self._caches[name, outcome].set(number)
            for name, state in breakers().items():
                self._open[name,].set(state != "closed")

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        self._look()
        self.flush()
        if _SHARED:
            from prometheus_client.multiprocess import MultiProcessCollector

            together = CollectorRegistry()
            MultiProcessCollector(together)
            return generate_latest(together), CONTENT_TYPE_LATEST
        return generate_latest(self.registry) + generate_latest(REGISTRY), CONTENT_TYPE_LATEST  # the latter: the process's and KServe's


class _Children(dict[tuple[str | int, ...], Any]):
    """A metric's labelled children, found once each. `made`: what is kept of each instead."""

    def __init__(self, metric: Any, bundle: str, made: Callable[[Any], Any] = lambda child: child) -> None:
        super().__init__()
        self._metric, self._bundle, self._made = metric, bundle, made

    def __missing__(self, labels: tuple[str | int, ...]) -> Any:
        child = self[labels] = self._made(self._metric.labels(self._bundle, *labels))
        return child


def kernel_name() -> str:
    """Which loops answer in this process."""
    return "native" if kernel.native() else "pure"
