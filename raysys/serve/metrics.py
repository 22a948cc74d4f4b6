"""The metrics of the service. Each node's Ray agent exports them, with those of Ray Serve, to Prometheus.

Prometheus sees every name with the prefix `ray_`, and counters with the suffix `_total`; Ray adds the labels
deployment, replica and application.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ray.serve.metrics import Counter, Gauge, Histogram

# Ray (2.60) adds the middle of its bucket to the sum of a histogram, not the value: that of 10 neighbours is
# a tenth, the middle of one of these.
_BUCKETS_RECALL = tuple((10 * tenth + 5) / 100 for tenth in range(11))
# So for a few inputs: the middles are the numbers.
_BUCKETS_BATCH = (*(number + 0.5 for number in range(17)), 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0, 512.0)
_BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0)


@dataclass(frozen=True)
class Metric:
    """A metric that a replica records; `record` needs exactly these labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = _BUCKETS_MS
    """Upper bounds of a histogram's buckets."""


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "raysys_requests",
            "counter",
            ("method", "route", "status"),
            "Requests by route template and HTTP status; status 0: the client left before a response.",
        ),
        Metric(
            "raysys_request_ms",
            "histogram",
            ("route",),
            "Duration of a request in the gateway, in milliseconds.",
        ),
        Metric(
            "raysys_stage_ms",
            "histogram",
            ("stage",),
            "Duration of a stage with its waiting, in milliseconds: decode (of a photo), encode, search.",
        ),
        Metric(
            "raysys_vector_cache",
            "counter",
            ("result",),
            "Photos whose vector the gateway had kept (hit) or not (miss).",
        ),
        Metric(
            "raysys_encoder_batch",
            "histogram",
            (),
            "Photos or titles that the encoder computed together.",
            _BUCKETS_BATCH,
        ),
        Metric(
            "raysys_change_lag_ms",
            "histogram",
            (),
            "Time from the acceptance of a change until a searcher finds it, in milliseconds.",
        ),
        Metric(
            "raysys_last_change_lag_ms",
            "gauge",
            (),
            "The same of the change that was applied last.",
        ),
        Metric(
            "raysys_changes_failing",
            "gauge",
            (),
            "1 while a searcher cannot read or apply changes, else 0.",
        ),
        Metric(
            "raysys_degraded_searches",
            "counter",
            (),
            "Searches with `serve.degraded_search_effort`, because a search would have waited for a thread.",
        ),
        Metric(
            "raysys_recall",
            "histogram",
            (),
            "Share of the 10 nearest items that the index finds, for a sample of the queries.",
            _BUCKETS_RECALL,
        ),
    )
}
# Metrics of Ray Serve (2.60) that `cluster/grafana.json` shows beside them.
RAY_METRICS = {
    "serve_deployment_queued_queries": "Requests that wait for a replica, by deployment.",
    "serve_replica_processing_queries": "Requests that replicas work on, by deployment.",
    "serve_num_http_error_requests": "Errors of HAProxy itself; error_code 503: it refused the request.",
    "serve_num_http_requests": "Responses of HAProxy by status_code: only those that it refused.",
}


def record(name: str, value: float, **labels: str) -> None:
    """Add to a counter, set a gauge, or observe a value of a histogram of `METRICS`."""
    instrument = _instrument(name)
    if isinstance(instrument, Counter):
        instrument.inc(value, tags=labels)
    elif isinstance(instrument, Gauge):
        instrument.set(value, tags=labels)
    else:
        instrument.observe(value, tags=labels)


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Record the duration of the block as `raysys_stage_ms`, also if it fails."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record("raysys_stage_ms", 1000 * (time.perf_counter() - started), stage=stage)


@functools.cache
def _instrument(name: str) -> Any:
    # Made at the first use, inside a replica: its context has the labels that Serve adds.
    metric = METRICS[name]
    labels: Any = metric.labels  # annotated as a tuple of one text
    if metric.kind == "histogram":
        return Histogram(name, metric.meaning, boundaries=list(metric.buckets), tag_keys=labels)
    return (Counter if metric.kind == "counter" else Gauge)(name, metric.meaning, tag_keys=labels)
