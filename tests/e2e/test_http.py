"""The HTTP contract, tested on a real service over the artifacts of a small configuration."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import time
import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from raysys.config.schema import ServeConfig
from raysys.serve.admission import encoder_requests
from tests.e2e.conftest import Served
from tests.e2e.small import SMALL, exported_metrics, stored_vectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, by the import of Ray Serve
    from raysys.serve.metrics import METRICS, RAY_METRICS

Json: TypeAlias = Any
NUM_ITEMS = SMALL["catalog"]["num_items"]
DIMENSIONS = SMALL["projection"]["dimensions"]
RESULT = {"exposure_id", "arm", "space_id", "index_version", "items"}
NEIGHBOUR = {"item_id", "score", "title", "attributes", "image_url"}
JSON_TYPE = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def ready(client: httpx.Client) -> Json:
    return json_of(client.get("/readyz"))


@pytest.fixture(scope="module")
def items(client: httpx.Client) -> list[Json]:
    """Twenty items of the index."""
    sample: list[Json] = json_of(client.get("/v1/items", params={"limit": 20, "seed": 3}))["items"]
    return sample


@pytest.fixture(scope="module")
def photo(client: httpx.Client, items: list[Json]) -> bytes:
    """The photo of the first item."""
    return client.get(items[0]["image_url"]).content


@pytest.fixture(scope="module")
def stored(served: Served) -> dict[str, np.ndarray]:
    """The vectors of the index by item id."""
    return stored_vectors(served.root)


def test_service_is_alive_and_ready_with_its_index(client: httpx.Client, served: Served, ready: Json) -> None:
    assert json_of(client.get("/healthz")) == {"status": "alive"}
    index = json.loads((served.root / "indexes" / "small" / "manifest.json").read_text())
    assert ready == {
        "status": "ready",
        "space_id": index["space_id"],
        "index_version": f"{index['fingerprint'][:12]}.0",
        "num_items": NUM_ITEMS,
        "last_change": 0,
        "has_encoder": True,
    }


def test_page_and_its_files_are_served(client: httpx.Client) -> None:
    for path, kind in {"/": "text/html", "/page/page.css": "text/css"}.items():
        response = client.get(path)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == f"{kind}; charset=utf-8"
    assert "<html" in client.get("/").text


def test_items_depend_only_on_the_seed(client: httpx.Client, items: list[Json]) -> None:
    assert len({item["item_id"] for item in items}) == 20
    assert all(set(item) == NEIGHBOUR - {"score"} for item in items)
    again = json_of(client.get("/v1/items", params={"limit": 20, "seed": 3}))["items"]
    others = json_of(client.get("/v1/items", params={"limit": 20, "seed": 4}))["items"]
    assert again == items != others


def test_photo_is_the_file_of_the_catalogue(client: httpx.Client, served: Served, items: list[Json]) -> None:
    item_id = items[0]["item_id"]
    response = client.get(f"/v1/items/{item_id}/photo")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.content == (served.root / "catalog" / "images" / f"{item_id}.jpg").read_bytes()


def test_similar_items_exclude_the_query_item(client: httpx.Client, items: list[Json], ready: Json) -> None:
    for item in items:
        result = similar(client, item["item_id"], k=5)
        assert set(result) == RESULT | {"query"}
        assert result["query"] == item
        assert_result(result, ready, k=5)
        assert item["item_id"] not in ids(result)


def test_number_of_neighbours_is_k_or_the_default(client: httpx.Client, items: list[Json]) -> None:
    assert len(similar(client, items[0]["item_id"], k=100)["items"]) == 100
    assert len(similar(client, items[0]["item_id"])["items"]) == 10  # serve.default_k


def test_scores_are_cosines_of_the_stored_vectors(
    client: httpx.Client, items: list[Json], stored: dict[str, np.ndarray]
) -> None:
    query = items[0]["item_id"]
    for neighbour in similar(client, query, k=20)["items"]:
        cosine = float(stored[query] @ stored[neighbour["item_id"]])
        assert neighbour["score"] == pytest.approx(cosine, abs=1e-5)


def test_search_with_the_photo_of_an_item_returns_it_first(
    client: httpx.Client, items: list[Json], ready: Json
) -> None:
    for item in items[:5]:
        photo = client.get(item["image_url"]).content
        result = json_of(
            client.post("/v1/search", files={"image": ("photo.jpg", photo)}, data={"k": "3", "unit": "u1"})
        )
        assert set(result) == RESULT
        assert_result(result, ready, k=3)
        assert ids(result)[0] == item["item_id"]
        assert result["items"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_photo_base64_and_vector_return_the_same_items(
    client: httpx.Client, photo: bytes, items: list[Json], stored: dict[str, np.ndarray], ready: Json
) -> None:
    vector = stored[items[0]["item_id"]]
    results = [
        search(client, image_base64=base64.b64encode(photo).decode(), k=5),
        search(client, vector=vector.tolist(), space_id=ready["space_id"], k=5),
        search(client, vector=(5 * vector).tolist(), space_id=ready["space_id"], k=5),
    ]
    first = json_of(client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={"k": "5"}))
    for result in results:
        assert set(result) == RESULT
        assert ids(result) == ids(first)
        assert scores(result) == pytest.approx(scores(first), abs=1e-5)
    assert len({result["exposure_id"] for result in [*results, first]}) == 4


def test_search_with_text_returns_items(client: httpx.Client, ready: Json) -> None:
    result = search(client, text="red dress", k=4)
    assert set(result) == RESULT
    assert_result(result, ready, k=4)


def test_embedded_photo_equals_the_stored_vector(
    client: httpx.Client, photo: bytes, items: list[Json], stored: dict[str, np.ndarray], ready: Json
) -> None:
    body = {"texts": ["red dress"], "images_base64": [base64.b64encode(photo).decode()]}
    embedded = json_of(client.post("/v1/embed", json=body))
    assert set(embedded) == {"space_id", "dimensions", "vectors"}
    assert (embedded["space_id"], embedded["dimensions"]) == (ready["space_id"], DIMENSIONS)
    vectors = np.array(embedded["vectors"])
    assert vectors.shape == (2, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    embedded_photo, expected = vectors[1], stored[items[0]["item_id"]]  # texts come first
    assert 1 - embedded_photo @ expected < 1e-5
    np.testing.assert_allclose(embedded_photo, expected, atol=1e-5)


def test_filter_keeps_only_matching_items(client: httpx.Client, items: list[Json], photo: bytes) -> None:
    category, seller = items[0]["attributes"]["category"], items[0]["attributes"]["seller"]
    where = {"category": {"in": [category]}, "seller": {"not": [seller]}, "price": {"gte": 1, "lte": 5000}}
    text = json.dumps(where)
    results = [
        similar(client, items[0]["item_id"], k=50, filter=text),
        search(client, text="dress", k=50, filter=where),
        json_of(
            client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={"filter": text, "k": "50"})
        ),
    ]
    for result in results:
        assert result["items"]
        for item in result["items"]:
            attributes = item["attributes"]
            assert attributes["category"] == category
            assert attributes["seller"] != seller
            assert 1 <= attributes["price"] <= 5000
    assert set(ids(results[0])) == set(ids(results[1])) == set(ids(results[2]))


def test_filter_without_matches_returns_no_items(client: httpx.Client) -> None:
    assert search(client, text="dress", filter={"category": {"in": ["submarines"]}})["items"] == []


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


def test_concurrent_searches_return_what_sequential_ones_return(
    client: httpx.Client, items: list[Json]
) -> None:
    photos = [client.get(item["image_url"]).content for item in items]

    def find(photo: bytes) -> Json:
        return json_of(client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={"k": "5"}))

    sequential = [find(photo) for photo in photos]
    num_threads = encoder_requests(ServeConfig()) - 1  # fewer than are refused
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        concurrent_results = list(threads.map(find, photos, timeout=60))
    for expected, result in zip(sequential, concurrent_results, strict=True):
        assert ids(result) == ids(expected)
        assert scores(result) == pytest.approx(scores(expected), abs=1e-5)


def test_node_exports_the_metrics_of_a_search(client: httpx.Client, served: Served, photo: bytes) -> None:
    json_of(client.post("/v1/search", files={"image": ("a.jpg", photo)}))
    # The others are of changes that came, of the small share of searches that are compared with exact ones, and
    # of overload.
    absent = {
        "raysys_change_lag_ms",
        "raysys_last_change_lag_ms",
        "raysys_recall",
        "raysys_degraded_searches",
    }
    expected = {*METRICS, *RAY_METRICS} - absent - {"serve_num_http_error_requests"}
    text = ""
    deadline = time.monotonic() + 60
    while missing := [name for name in expected if f"\nray_{name}" not in text]:
        assert time.monotonic() < deadline, missing  # replicas report every few seconds
        text = exported_metrics(served.pid)
        time.sleep(0.5)
    for stage in ("decode", "encode", "search"):
        assert f'stage="{stage}"' in text
    assert 'route="/v1/search",status="200"' in text


def test_response_has_the_id_of_its_request(client: httpx.Client) -> None:
    assert client.get("/v1/items", headers={"X-Request-Id": "my-id"}).headers["X-Request-Id"] == "my-id"
    first, second = (client.get("/healthz").headers["X-Request-Id"] for _ in range(2))
    assert first != second


def similar(client: httpx.Client, item_id: str, **parameters: Json) -> Json:
    return json_of(client.get(f"/v1/items/{item_id}/similar", params=parameters))


def search(client: httpx.Client, **body: Json) -> Json:
    return json_of(client.post("/v1/search", json=body))


def json_of(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    return response.json()


def ids(result: Json) -> list[str]:
    return [item["item_id"] for item in result["items"]]


def scores(result: Json) -> list[float]:
    return [item["score"] for item in result["items"]]


def assert_result(result: Json, ready: Json, k: int) -> None:
    assert (result["space_id"], result["index_version"]) == (ready["space_id"], ready["index_version"])
    assert result["arm"] == "default"
    assert len(result["exposure_id"]) == 32
    assert len(set(ids(result))) == len(result["items"]) == k
    assert scores(result) == sorted(scores(result), reverse=True)
    for item in result["items"]:
        assert set(item) == NEIGHBOUR
        assert set(item["attributes"]) == {"seller", "category", "price", "listed_at"}
        assert item["image_url"] == f"/v1/items/{item['item_id']}/photo"


def assert_error(response: httpx.Response, status: int, message: str, code: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == (code or CODES.get(status, error["code"]))
    assert message in error["message"]
    assert "\n" not in error["message"]
