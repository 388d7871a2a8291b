"""What can be seen from outside: Prometheus metrics named by bundle, traces when an exporter is given, logs without users' data."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
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

from serving import kernel
from serving.query import Answer
from serving.tallies import Count, Tally

_SHARED = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # read when prometheus_client reads it; other packages set it later (Feast)
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0)
_SCORES = tuple(step / 10 for step in range(-10, 11))
_POUR_SECONDS = 1.0  # what one worker gathers is kept this long, and then known to the others


class Metrics:
    """The counters of one worker; several workers add theirs up through PROMETHEUS_MULTIPROC_DIR."""

    def __init__(self, bundle: str) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        more: dict[str, Any] = {"registry": self.registry, "namespace": "shortlist"}
        label = bundle.removeprefix("sha256:")[:12]
        self._gathered: list[Count | Tally] = []
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
        self._caches = _Children(
            Gauge("cache", "look-ups of the caches", ["bundle", "cache", "outcome"], multiprocess_mode="sum", **more), label
        )
        open_ = Gauge("breaker_open", "1 while a dependency is not asked", ["bundle", "dependency"], multiprocess_mode="max", **more)
        self._open = _Children(open_, label)
        self._answers: list[tuple[dict[str, str] | None, float | None, dict[str, float]]] = []
        self._watched: tuple[Callable[[], Mapping[str, Mapping[str, int]]], Callable[[], Mapping[str, str]]] | None = None
        self.behind = Gauge(
            "events_behind", "acknowledged events not yet in the states", ["bundle"], multiprocess_mode="sum", **more
        ).labels(label)
        info = Gauge("bundle_info", "1 for the bundle served", ["bundle", "digest", "kernel"], multiprocess_mode="max", **more)
        info.labels(label, bundle, kernel_name()).set(1)

    def answered(self, answer: Answer) -> None:
        """Count a list: its rung, stages, first score, and whether it is empty."""
        self._answers.append((answer.degraded, answer.items[0].score if answer.items else None, answer.stage_ms))

    def _counted(self, child: Any) -> Count:
        self._gathered.append(made := Count(child))
        return made

    def _tallied(self, child: Any) -> Tally:
        self._gathered.append(made := Tally(child))
        return made

    def pour(self) -> None:
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
        for one in self._gathered:
            one.pour()

    async def keep_pouring(self) -> None:
        """For ever: other workers may be asked for our counts, and what is gathered takes room."""
        while True:
            await asyncio.sleep(_POUR_SECONDS)
            self.pour()

    def responded(self, route: str, status: int) -> None:
        self._requests[route, status].inc()

    def events(self, outcome: str, count: int) -> None:
        if count:
            self._events[outcome,].inc(count)

    def watch(self, caches: Callable[[], Mapping[str, Mapping[str, int]]], breakers: Callable[[], Mapping[str, str]]) -> None:
        """Read these counters and breaker states whenever the metrics are asked for."""
        self._watched = (caches, breakers)

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
        self.pour()
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


def configure_logs(level: str = "info") -> Any:
    """A structlog logger that writes one JSON event a line to standard error."""
    import logging
    import sys

    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    return structlog.get_logger("serving")


class Traces:
    """Spans, when an OTLP endpoint was given; otherwise nothing is imported and nothing done."""

    def __init__(self, endpoint: str | None, service: str) -> None:
        self.on = bool(endpoint)
        self._tracer: Any = None
        self._provider: Any = None
        if endpoint:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=2)))
            self._tracer = self._provider.get_tracer("shortlist.serving")

    def span(self, name: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> AbstractContextManager[Any]:
        """A span that continues the caller's trace (its `traceparent` header)."""
        if self._tracer is None:
            return nullcontext()
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")}
        parent = TraceContextTextMapPropagator().extract(carrier)
        span: AbstractContextManager[Any] = self._tracer.start_as_current_span(name, context=parent)
        return span

    def close(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()
