"""Limits of request bodies: their time, their parts and their filters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.factories import photo
from tests.unit.serve.conftest import Service

FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON_TYPE = {"content-type": "application/json"}


async def stalled(start: bytes) -> AsyncIterator[bytes]:
    """The start of a body whose rest never arrives."""
    yield start
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("url", "headers", "start"),
    [
        ("/v1/search", JSON_TYPE, b'{"text": "a'),
        ("/v1/embed", JSON_TYPE, b'{"texts": ['),
        ("/v1/search", FORM, b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx'),
    ],
)
def test_body_that_does_not_arrive_is_given_up(
    serve_with: Callable[..., Service], url: str, headers: dict[str, str], start: bytes
) -> None:
    response = serve_with(body_timeout_s=0.05).post(url, headers=headers, content=stalled(start))
    assert response.status_code == 408
    assert response.json()["error"] == {
        "code": "body_timeout",
        "message": "body: did not arrive within 0.05 s; send a smaller photo, or set serve.body_timeout_s",
    }


def test_form_has_few_parts(service: Service) -> None:
    too_many = {f"x{number}": "1" for number in range(17)}
    response = service.post("/v1/search", files={"image": photo()}, data=too_many)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "http_error")
    files = [(f"file{number}", photo()) for number in range(5)]
    assert service.post("/v1/search", files=files).status_code == 400


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({f"a{n}": {"in": []} for n in range(33)}, "filter: at most 32 attributes are accepted, got 33"),
        ({"price": {"in": [1] * 9000, "not": [2] * 1001}}, "filter: at most 10000 values are accepted, got 10001"),
    ],
)  # fmt: skip
def test_filter_has_a_limited_size(service: Service, where: Any, message: str) -> None:
    response = service.post("/v1/search", json={"text": "a", "filter": where})
    assert (response.status_code, response.json()["error"]["message"]) == (422, message)


def test_large_filter_below_the_limit_is_accepted(service: Service) -> None:
    where = {"price": {"in": list(range(10_000))}}
    assert service.post("/v1/search", json={"text": "a", "filter": where}).status_code == 200
