"""OpenTelemetry traces: Ray Serve makes the spans, and this sends them to a collector by OTLP over HTTP.

A request has a span in each replica that works on it, and one for each call between them. Its trace is that
of the header `traceparent`, or a new one. The standard variables OTEL_EXPORTER_OTLP_ENDPOINT, .._HEADERS and
OTEL_SERVICE_NAME hold, in the environment of every replica.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raysys.config.schema import ServeConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


def tracing_options(section: ServeConfig) -> dict[str, Any] | None:
    """Fields of Ray Serve's `TracingConfig`; None without traces."""
    if not section.trace_sample:
        return None
    path = f"{__name__}:{span_processors.__name__}"
    return {"enabled": True, "exporter_import_path": path, "sampling_ratio": section.trace_sample}


def span_processors() -> list[SpanProcessor]:
    """What every replica does with its spans; Ray Serve calls it by the path above."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return [BatchSpanProcessor(OTLPSpanExporter())]
