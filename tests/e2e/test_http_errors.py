"""Errors of the HTTP contract, tested on a real service: status, code and message."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests.e2e.conftest import Json
from tests.e2e.small import SMALL

DIMENSIONS = SMALL["projection"]["dimensions"]
JSON_TYPE = {"content-type": "application/json"}
SEARCH_ERRORS: dict[str, tuple[Json, int, str]] = {
    "no query": ({}, 422, "search: exactly one of text, image, vector is required, got none"),
    "two queries": ({"text": "a", "vector": [1.0]}, 422, "required, got text, vector"),
    "blank words": ({"text": " "}, 422, "text: is empty; give at least one word"),
    "unknown field": ({"txt": "a"}, 422, "txt: extra inputs are not permitted"),
    "k = 0": ({"text": "a", "k": 0}, 422, "k: must be 1 to 100, got 0"),
    "k too large": ({"text": "a", "k": 101}, 422, "k: must be 1 to 100, got 101"),
    "k no number": ({"text": "a", "k": "many"}, 422, "k: input should be a valid integer"),
    "bad base64": ({"image_base64": "%%%"}, 422, "image_base64: not base64"),
    "no photo in base64": ({"image_base64": "aGVsbG8="}, 415, "not a photo (5 bytes)"),
    "no space id": ({"vector": [1.0]}, 422, "space_id: is required with vector"),
    "zero vector": ({"vector": [0.0] * DIMENSIONS, "space_id": "THIS"}, 422, "got a vector of length 0"),
    "short vector": ({"vector": [1.0] * 3, "space_id": "THIS"}, 422, "16 numbers are required, got 3"),
    "other space": (
        {"vector": [1.0] * DIMENSIONS, "space_id": "f" * 64},
        409,
        "embedding space ffffffffffff",
    ),
    "filter no object": ({"text": "a", "filter": 3}, 422, "filter: input should be an object"),
    "unknown attribute": (
        {"text": "a", "filter": {"categry": {"in": ["x"]}}},
        422,
        "filter: no attribute 'categry' (attributes: category, listed_at, price, seller); did you mean 'category'?",
    ),
    "unknown operator": ({"text": "a", "filter": {"price": {"gt": 1}}}, 422, "unknown operator 'gt'"),
    "other type": (
        {"text": "a", "filter": {"category": {"gte": 3}}},
        422,
        "different types",
    ),
}
CODES = {
    404: "not_found",
    405: "method_not_allowed",
    409: "space_mismatch",
    413: "too_large",
    422: "invalid_input",
}


@pytest.mark.parametrize("case", SEARCH_ERRORS)
def test_invalid_search_is_an_error_of_one_line(client: httpx.Client, ready: Json, case: str) -> None:
    body, status, message = SEARCH_ERRORS[case]
    if body.get("space_id") == "THIS":
        body = {**body, "space_id": ready["space_id"]}
    assert_error(client.post("/v1/search", json=body), status, message)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_vector_without_finite_length_is_an_error(client: httpx.Client, ready: Json, number: str) -> None:
    vector = ", ".join([number] * DIMENSIONS)
    body = f'{{"vector": [{vector}], "space_id": "{ready["space_id"]}"}}'
    assert_error(client.post("/v1/search", content=body, headers=JSON_TYPE), 422, "vector: ")


def test_invalid_json_is_an_error(client: httpx.Client) -> None:
    for path in ("/v1/search", "/v1/embed"):
        assert_error(client.post(path, content="{", headers=JSON_TYPE), 422, "body: invalid json")


def test_unsupported_content_type_is_an_error(client: httpx.Client) -> None:
    for path in ("/v1/search", "/v1/embed"):
        response = client.post(path, content="red dress", headers={"content-type": "text/plain"})
        assert_error(response, 415, "got 'text/plain'", "unsupported_media_type")
    assert_error(client.post("/v1/search", content=b"x"), 415, "content-type", "unsupported_media_type")


def test_upload_must_be_a_photo(client: httpx.Client, photo: bytes) -> None:
    for data in (b"", b"hello", photo[: len(photo) // 2]):
        response = client.post("/v1/search", files={"image": ("a.jpg", data)})
        assert_error(response, 415, "photo", "unreadable_image")
    missing = client.post("/v1/search", files={"picture": ("a.jpg", photo)})
    assert_error(missing, 422, "image: a file is required in the multipart field 'image'")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("k", "0", "k: must be 1 to 100, got 0"),
        ("k", "many", "k: input should be a valid integer"),
        ("filter", "{", "filter: not JSON"),
        ("filter", "[1]", "filter: input should be an object"),
    ],
)
def test_invalid_form_field_is_an_error(
    client: httpx.Client, photo: bytes, field: str, value: str, message: str
) -> None:
    response = client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={field: value})
    assert_error(response, 422, message)


def test_too_large_body_is_an_error(client: httpx.Client) -> None:
    big = b"0" * 15_000_000
    over = {"image": ("a.jpg", b"0" * 10_000_001)}  # serve.max_image_megabytes is 10
    form = client.post("/v1/search", files=over)
    assert_error(form, 413, "image: 10,000,001 bytes, at most 10,000,000 are accepted; send a smaller photo")
    for path in ("/v1/search", "/v1/embed"):
        response = client.post(path, content=big, headers=JSON_TYPE)
        assert_error(response, 413, "body: 15,000,000 bytes, at most 14,333,333 are accepted")


def test_too_large_body_of_unknown_length_is_an_error(client: httpx.Client) -> None:
    chunks = iter([b"0" * 1_000_000] * 15)  # no Content-Length
    response = client.post("/v1/search", content=chunks, headers=JSON_TYPE)
    assert_error(response, 413, "at most 14,333,333 are accepted")


def test_invalid_item_request_is_an_error(client: httpx.Client, items: list[Json]) -> None:
    known = f"/v1/items/{items[0]['item_id']}/similar"
    for path in ("/v1/items/unknown/similar", "/v1/items/unknown/photo"):
        assert_error(client.get(path), 404, "item 'unknown' is not in the index")
    assert_error(client.get(known, params={"k": 0}), 422, "k: must be 1 to 100, got 0")
    assert_error(client.get(known, params={"k": "x"}), 422, "k: input should be a valid integer")
    assert_error(client.get(known, params={"filter": "{"}), 422, "filter: not JSON")
    assert_error(client.get(known, params={"filter": "[1]"}), 422, "filter: an object like")
    assert_error(client.get("/v1/items", params={"limit": 0}), 422, "limit: input should be greater")


@pytest.mark.parametrize(
    ("path", "item_id"),
    [
        ("a%2Fb/similar", "a/b"),
        ("%2Fa%2F/photo", "/a/"),
        ("..%2Fsimilar", ".."),
        (".%2Fphoto", "."),
        ("a%2F..%2Fb/similar", "a/../b"),
        ("%252F/similar", "%2F"),
        ("a%23%3F%25%20+%26%22b/photo", 'a#?% +&"b'),
        (f"{quote('シャツ/赤👗')}/similar", "シャツ/赤👗"),
        (f"{quote('あ' * 300)}/photo", "あ" * 300),
        ("a%0Ab/similar", r"a\nb"),
        ("%2Fa%0A%2Fb%09/photo", r"/a\n/b\t"),
        ("%0D%0A%2F%0A/similar", r"\r\n/\n"),
    ],
)
def test_any_item_id_arrives_at_the_index(client: httpx.Client, path: str, item_id: str) -> None:
    response = client.get(f"/v1/items/{path}")
    assert_error(response, 404, f"item '{item_id}' is not in the index")


def test_invalid_embedding_request_is_an_error(client: httpx.Client) -> None:
    for body in ({}, {"texts": ["a"] * 65}):
        assert_error(client.post("/v1/embed", json=body), 422, "1 to 64 in total")
    assert_error(client.post("/v1/embed", json={"texts": [""]}), 422, "text: is empty")
    wrong = client.post("/v1/embed", json={"images_base64": ["aGVsbG8="]})
    assert_error(wrong, 415, "not a photo", "unreadable_image")


def test_unknown_routes_and_methods_return_the_common_error_format(client: httpx.Client) -> None:
    for path in ("/v1/nothing", "/page/nothing.css", "/page/index.html.py"):
        assert_error(client.get(path), 404, "")
    assert_error(client.get("/v1/search"), 405, "Method Not Allowed")
    assert_error(client.put("/v1/items"), 405, "Method Not Allowed")


def assert_error(response: httpx.Response, status: int, message: str, code: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == (code or CODES.get(status, error["code"]))
    assert message in error["message"]
    assert "\n" not in error["message"]
