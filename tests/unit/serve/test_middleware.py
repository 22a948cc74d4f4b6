"""Headers, CORS, the access log and metrics of every response."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from raysys.serve import metrics
from tests.unit.serve.conftest import Service
from tests.unit.serve.test_tokens import ACCESS, bearer

SHOP = "https://shop.example.com"


class BrokenSearch:
    """An index whose replica fails in an unforeseen way."""

    async def sample(self, generation: int, limit: int, seed: int) -> None:
        raise ZeroDivisionError("secret detail")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Name and labels of the recorded metrics."""
    calls: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(metrics, "record", lambda name, value, **labels: calls.append((name, labels)))
    return calls


@pytest.mark.parametrize(
    ("url", "status"), [("/v1/items", 200), ("/nothing", 404), ("/v1/items/x/photo", 404), ("/v1/items?k=3", 422)]
)  # fmt: skip
def test_responses_of_the_api_may_load_nothing(service: Service, url: str, status: int) -> None:
    response = service.get(url)
    assert response.status_code == status
    assert_secure(response.headers, "default-src 'none'; frame-ancestors 'none'")


def test_page_may_load_its_own_files_and_photos(service: Service) -> None:
    headers = service.get("/").headers
    assert_secure(headers, headers["Content-Security-Policy"])
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def assert_secure(headers: Any, policy: str) -> None:
    assert headers["Content-Security-Policy"] == policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_unforeseen_error_has_the_same_headers_and_no_detail(
    serve_with: Callable[..., Service], recorded: list[tuple[str, dict[str, str]]]
) -> None:
    response = serve_with(search=BrokenSearch()).get("/v1/items")
    assert response.status_code == 500
    assert response.json()["error"] == {
        "code": "internal",
        "message": "internal error (ZeroDivisionError); see the server's log",
    }
    assert_secure(response.headers, "default-src 'none'; frame-ancestors 'none'")
    assert recorded[0] == ("raysys_requests", {"method": "GET", "route": "/v1/items", "status": "500"})


def test_cross_origin_requests_are_off_by_default(service: Service) -> None:
    preflight = service.request("OPTIONS", "/v1/search", headers=preflight_of(SHOP))
    assert preflight.status_code == 405
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_listed_origin_may_call_the_api_with_a_token(serve_with: Callable[..., Service]) -> None:
    service = serve_with(access=ACCESS, cors_origins=[SHOP])
    preflight = service.request("OPTIONS", "/v1/search", headers=preflight_of(SHOP))
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == SHOP
    refused = service.get("/v1/items", headers={"Origin": SHOP})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, SHOP)
    accepted = service.get("/v1/items", headers={"Origin": SHOP, **bearer("reader")})
    assert (accepted.status_code, accepted.headers["Access-Control-Allow-Origin"]) == (200, SHOP)


def test_other_origin_is_refused(serve_with: Callable[..., Service]) -> None:
    service = serve_with(cors_origins=[SHOP])
    preflight = service.request("OPTIONS", "/v1/search", headers=preflight_of("https://evil.example.com"))
    assert preflight.status_code == 400
    assert "Access-Control-Allow-Origin" not in preflight.headers


def preflight_of(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }


def test_access_log_names_route_and_token_but_no_input(
    serve_with: Callable[..., Service], capsys: pytest.CaptureFixture[str]
) -> None:
    service = serve_with(access=ACCESS, access_log="json")
    url = "/v1/items/m1/similar?unit=private-user"
    service.get(url, headers={**bearer("reader"), "X-Request-Id": "abc-1"})
    [line] = log_lines(capsys)
    assert line.pop("time") > 1.7e9
    assert 0 < line.pop("ms") < 60_000
    assert line == {
        "method": "GET",
        "route": "/v1/items/{item_id}/similar",
        "status": 200,
        "request_id": "abc-1",
        "token": "reader",
    }


def log_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_request_id_of_a_client_stays_one_short_line(
    serve_with: Callable[..., Service], capsys: pytest.CaptureFixture[str]
) -> None:
    serve_with(access_log="json").get("/nothing", headers={"X-Request-Id": "\t\x7f" + "x" * 5000})
    [line] = log_lines(capsys)
    assert (line["route"], line["status"], line["token"]) == ("unmatched", 404, None)
    assert line["request_id"].startswith(r"\t\x7fxxx")
    assert len(line["request_id"]) <= 64


def test_no_access_log_by_default(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.get("/v1/items")
    assert log_lines(capsys) == []


def test_every_recorded_metric_is_declared_with_its_labels(
    service: Service, recorded: list[tuple[str, dict[str, str]]]
) -> None:
    service.post("/v1/search", json={"text": "red dress"})
    service.get("/v1/items/m1/similar")
    service.get("/nothing")
    assert recorded
    for name, labels in recorded:
        assert set(labels) == set(metrics.METRICS[name].labels), name
    stages = [labels["stage"] for name, labels in recorded if name == "raysys_stage_ms"]
    assert stages == ["encode", "search", "search"]
    requests = [tuple(labels.values()) for name, labels in recorded if name == "raysys_requests"]
    assert requests == [
        ("POST", "/v1/search", "200"),
        ("GET", "/v1/items/{item_id}/similar", "200"),
        ("GET", "unmatched", "404"),
    ]
