"""The service over vectors of no EncoderBundle: items and vectors are queries, photos and texts are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import photo
from tests.unit.serve.conftest import DIMENSIONS, SPACE_ID, Service

MESSAGE = (
    "photos and texts cannot be embedded: the vectors of the index are of no EncoderBundle; search by item, or by a "
    "vector and the space_id of /readyz"
)


@pytest.fixture
def service(serve_with: Callable[..., Service]) -> Service:
    return serve_with(has_encoder=False, example_queries=("red dress",))


def test_items_and_vectors_are_searched(service: Service) -> None:
    assert service.get("/readyz").json()["has_encoder"] is False
    body = service.get(
        "/v1/items/m1/similar", params={"k": 3, "filter": '{"category": {"in": ["bags"]}}'}
    ).json()
    assert [item["attributes"]["category"] for item in body["items"]] == ["bags"] * 3
    assert service.get("/v1/items/m1/photo").content == photo((0, 0, 0))
    vector = {"vector": [1.0] * DIMENSIONS, "space_id": SPACE_ID, "k": 2}
    assert len(service.post("/v1/search", json=vector).json()["items"]) == 2
    other = service.post("/v1/search", json={**vector, "space_id": "6" * 64})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "space_mismatch")


def test_page_is_offered_no_texts(service: Service) -> None:
    examples = service.get("/v1/examples").json()
    assert examples["texts"] == []
    assert examples["item"] is not None


@pytest.mark.parametrize(
    ("url", "request_body"),
    [
        ("/v1/search", {"json": {"text": "red dress"}}),
        ("/v1/search", {"files": {"image": ("a.jpg", photo())}}),
        ("/v1/embed", {"json": {"texts": ["red dress"]}}),
    ],
)
def test_photos_and_texts_are_refused_in_one_line(
    service: Service, url: str, request_body: dict[str, Any]
) -> None:
    response = service.post(url, **request_body)
    assert response.status_code == 409
    assert response.json() == {"error": {"code": "no_encoder", "message": MESSAGE}}
