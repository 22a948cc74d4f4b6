"""`raysys serve CONFIG --switch`: what it asks, what it prints, and how it fails."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from raysys.config.schema import ServeConfig
from raysys.errors import ClusterError, SwitchRefused
from raysys.serve import admin


def pair(generation: int, version: str) -> dict[str, Any]:
    return {
        "generation": generation,
        "space_id": "5" * 64,
        "index_version": version,
        "index_uri": "/indexes/x/version-1",
        "encoder_uri": None,
    }


def answer(monkeypatch: pytest.MonkeyPatch, status: int, content: bytes) -> list[httpx.Request]:
    """Let every request get this response; the requests."""
    requests: list[httpx.Request] = []

    def post(url: str, **options: Any) -> httpx.Response:
        requests.append(httpx.Request("POST", url, headers=options["headers"]))
        return httpx.Response(status, content=content, request=requests[-1])

    monkeypatch.setattr(httpx, "post", post)
    return requests


@pytest.mark.parametrize(
    ("after", "line"),
    [
        (pair(2, "bbb"), "index aaa -> bbb"),
        (pair(1, "aaa"), "index aaa is served already: nothing new is published"),
    ],
)
def test_switch_is_requested_with_the_token_and_summed_up(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, Any], line: str
) -> None:
    monkeypatch.setenv("RAYSYS_TOKEN", "secret")
    requests = answer(monkeypatch, 200, json.dumps({"before": pair(1, "aaa"), "after": after}).encode())
    assert admin.summary(admin.request_switch(ServeConfig(host="0.0.0.0", port=81), "switch")) == line
    assert str(requests[0].url) == "http://127.0.0.1:81/v1/admin/switch"
    assert requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"error": {"code": "switch_refused", "message": "the new pair is refused"}}',
            "the new pair is refused",
        ),
        (b"<html>", "http://127.0.0.1:8000/v1/admin/rollback: status 409; is it the address of the service?"),
    ],
)
def test_refusal_is_one_line_and_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.delenv("RAYSYS_TOKEN", raising=False)
    requests = answer(monkeypatch, 409, content)
    with pytest.raises(SwitchRefused) as caught:
        admin.request_switch(ServeConfig(), "rollback")
    assert (str(caught.value), caught.value.exit_status) == (message, 1)
    assert "authorization" not in requests[0].headers


def test_no_service_is_an_error_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **_: Any) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(httpx, "post", refuse)
    with pytest.raises(ClusterError, match=r"^http://127\.0\.0\.1:8000: no service answers .*serve\.port"):
        admin.request_switch(ServeConfig(), "switch")
