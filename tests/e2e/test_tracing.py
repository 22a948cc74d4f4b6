"""Traces of a running service, as a collector of OpenTelemetry receives them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.small import wait_for

TRACED, UNTRACED = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
CALLER = "00f067aa0ba902b7"  # the span that a request comes from
GATEWAY, ENCODER = "replica_handle_request Gateway __call__", "replica_handle_request Encoder embed_titles"


class Collector(ThreadingHTTPServer):
    """Receives spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def named(self, trace: str) -> dict[str, Any]:
        """The spans of a trace by name."""
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.services |= {
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            }
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on stderr."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shelf")
        yield collector
        collector.shutdown()


@pytest.mark.slow  # half a minute
@pytest.mark.parametrize("service", [{"trace_sample": 1e-9}], indirect=True)
def test_trace_of_the_caller_has_spans_of_gateway_and_encoder(
    collector: Collector, service: tuple[str, Path, int]
) -> None:
    url, _, _ = service
    with httpx.Client(base_url=url, timeout=60) as client:
        for trace, flag in ((UNTRACED, "00"), (TRACED, "01")):  # the caller decides, not the share
            headers = {"traceparent": f"00-{trace}-{CALLER}-{flag}"}
            assert client.post("/v1/search", json={"text": "a cup"}, headers=headers).status_code == 200
    wait_for(lambda: {GATEWAY, ENCODER} <= collector.named(TRACED).keys())
    spans = collector.named(TRACED)
    assert spans[GATEWAY].parent_span_id.hex() == CALLER
    parents = {span.span_id: span.parent_span_id for span in spans.values()}
    route = spans["POST /v1/search"]
    assert route.parent_span_id.hex() == CALLER
    assert route.span_id in ancestors(spans[ENCODER].span_id, parents)
    assert collector.named(UNTRACED) == {}
    assert collector.services == {"shelf"}


def ancestors(span: bytes, parents: dict[bytes, bytes]) -> list[bytes]:
    """The spans around a span, the next one first."""
    found = []
    while (span := parents.get(span, b"")) != b"":
        found.append(span)
    return found
