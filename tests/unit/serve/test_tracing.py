"""The options for traces that Ray Serve gets."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from ray._common.utils import import_attr
from ray.serve.schema import TracingConfig

from raysys.config.schema import ServeConfig
from raysys.serve.tracing import tracing_options


def test_share_of_zero_means_no_traces() -> None:
    assert tracing_options(ServeConfig()) is None


def test_spans_are_sent_to_the_collector_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    config = TracingConfig.model_validate(tracing_options(ServeConfig(trace_sample=0.25)))
    assert (config.enabled, config.sampling_ratio) == (True, 0.25)
    (processor,) = import_attr(config.exporter_import_path)()  # as Ray Serve does in each replica
    assert isinstance(processor, BatchSpanProcessor)
    assert processor.span_exporter._endpoint == "http://collector:4318/v1/traces"
    processor.shutdown()
