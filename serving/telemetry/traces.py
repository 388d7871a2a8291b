"""Traces, when an exporter is given."""

import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_LAST_SECONDS = 2.0


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
        """Send what is left, for as long as a collector that answers needs."""
        if self._provider is not None:
            last = threading.Thread(target=self._provider.shutdown, daemon=True)
            last.start()
            last.join(_LAST_SECONDS)
