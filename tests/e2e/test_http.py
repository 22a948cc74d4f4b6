"""The HTTP contract, tested on a real service over the artifacts of a small configuration."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import time
import warnings

import httpx
import numpy as np
import pytest

from raysys.config.schema import ServeConfig
from raysys.serve.admission import encoder_requests
from tests.e2e.conftest import Json, Served, json_of
from tests.e2e.small import SMALL, exported_metrics, stored_vectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, by the import of Ray Serve
    from raysys.serve.metrics import METRICS, RAY_METRICS

NUM_ITEMS = SMALL["catalog"]["num_items"]
DIMENSIONS = SMALL["projection"]["dimensions"]
RESULT = {"exposure_id", "arm", "space_id", "index_version", "items"}
NEIGHBOUR = {"item_id", "score", "title", "attributes", "image_url"}


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
        "serve_num_http_error_requests",
        "serve_num_http_requests",
    }
    expected = {*METRICS, *RAY_METRICS} - absent
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
