"""The HTTP contract, asked of a real service over the small path."""

from __future__ import annotations

import base64
import concurrent.futures
import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Served
from tests.e2e.small import SMALL, stored_vectors

Json: TypeAlias = Any
NUM_ITEMS = SMALL["catalog"]["num_items"]
DIMENSIONS = SMALL["projection"]["dimensions"]
SHELF = {"exposure_id", "arm", "space_id", "index_version", "items"}
NEIGHBOUR = {"item_id", "score", "title", "attributes", "image_url"}
JSON_TYPE = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def ready(client: httpx.Client) -> Json:
    return answer(client.get("/readyz"))


@pytest.fixture(scope="module")
def listed(client: httpx.Client) -> list[Json]:
    """Twenty listings to ask about."""
    items: list[Json] = answer(client.get("/v1/items", params={"limit": 20, "seed": 3}))["items"]
    return items


@pytest.fixture(scope="module")
def photo(client: httpx.Client, listed: list[Json]) -> bytes:
    """The photo of the first of them."""
    return client.get(listed[0]["image_url"]).content


@pytest.fixture(scope="module")
def stored(served: Served) -> dict[str, np.ndarray]:
    """The vectors that the index was built from."""
    return stored_vectors(served.root)


def test_alive_and_ready(client: httpx.Client, served: Served, ready: Json) -> None:
    assert answer(client.get("/healthz")) == {"status": "alive"}
    index = json.loads((served.root / "indexes" / "small" / "manifest.json").read_text())
    assert ready == {
        "status": "ready",
        "space_id": index["space_id"],
        "index_version": f"{index['fingerprint'][:12]}.0",
        "num_items": NUM_ITEMS,
    }


def test_the_page_and_its_files(client: httpx.Client) -> None:
    for path, kind in {"/": "text/html", "/page/page.css": "text/css"}.items():
        response = client.get(path)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == f"{kind}; charset=utf-8"
    assert "<html" in client.get("/").text


def test_listings_to_start_from(client: httpx.Client, listed: list[Json]) -> None:
    assert len({item["item_id"] for item in listed}) == 20
    assert all(set(item) == NEIGHBOUR - {"score"} for item in listed)
    again = answer(client.get("/v1/items", params={"limit": 20, "seed": 3}))["items"]
    others = answer(client.get("/v1/items", params={"limit": 20, "seed": 4}))["items"]
    assert again == listed != others


def test_a_photo_is_the_catalogues_own(client: httpx.Client, served: Served, listed: list[Json]) -> None:
    item_id = listed[0]["item_id"]
    response = client.get(f"/v1/items/{item_id}/photo")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.content == (served.root / "catalog" / "images" / f"{item_id}.jpg").read_bytes()


def test_similar_is_a_shelf_without_the_item_itself(
    client: httpx.Client, listed: list[Json], ready: Json
) -> None:
    for item in listed:
        shelf = similar(client, item["item_id"], k=5)
        assert set(shelf) == SHELF | {"query"}
        assert shelf["query"] == item
        assert_shelf(shelf, ready, k=5)
        assert item["item_id"] not in ids(shelf)


def test_every_other_item_is_a_neighbour_at_most(client: httpx.Client, listed: list[Json]) -> None:
    assert len(similar(client, listed[0]["item_id"], k=100)["items"]) == 100
    assert len(similar(client, listed[0]["item_id"])["items"]) == 10  # serve.default_k


def test_scores_are_cosines_of_the_stored_vectors(
    client: httpx.Client, listed: list[Json], stored: dict[str, np.ndarray]
) -> None:
    query = listed[0]["item_id"]
    for neighbour in similar(client, query, k=20)["items"]:
        cosine = float(stored[query] @ stored[neighbour["item_id"]])
        assert neighbour["score"] == pytest.approx(cosine, abs=1e-5)


def test_a_listed_photo_finds_its_item_first(client: httpx.Client, listed: list[Json], ready: Json) -> None:
    for item in listed[:5]:
        photo = client.get(item["image_url"]).content
        shelf = answer(
            client.post("/v1/search", files={"image": ("look.jpg", photo)}, data={"k": "3", "unit": "u1"})
        )
        assert set(shelf) == SHELF
        assert_shelf(shelf, ready, k=3)
        assert ids(shelf)[0] == item["item_id"]
        assert shelf["items"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_every_way_to_give_a_photo_finds_the_same(
    client: httpx.Client, photo: bytes, listed: list[Json], stored: dict[str, np.ndarray], ready: Json
) -> None:
    vector = stored[listed[0]["item_id"]]
    ways = [
        search(client, image_base64=base64.b64encode(photo).decode(), k=5),
        search(client, vector=vector.tolist(), space_id=ready["space_id"], k=5),
        search(client, vector=(5 * vector).tolist(), space_id=ready["space_id"], k=5),
    ]
    first = answer(client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={"k": "5"}))
    for shelf in ways:
        assert set(shelf) == SHELF
        assert ids(shelf) == ids(first)
        assert scores(shelf) == pytest.approx(scores(first), abs=1e-5)
    assert len({shelf["exposure_id"] for shelf in [*ways, first]}) == 4


def test_words_find_a_shelf(client: httpx.Client, ready: Json) -> None:
    shelf = search(client, text="red dress", k=4)
    assert set(shelf) == SHELF
    assert_shelf(shelf, ready, k=4)


def test_a_served_vector_is_the_stored_one(
    client: httpx.Client, photo: bytes, listed: list[Json], stored: dict[str, np.ndarray], ready: Json
) -> None:
    body = {"texts": ["red dress"], "images_base64": [base64.b64encode(photo).decode()]}
    embedded = answer(client.post("/v1/embed", json=body))
    assert set(embedded) == {"space_id", "dimensions", "vectors"}
    assert (embedded["space_id"], embedded["dimensions"]) == (ready["space_id"], DIMENSIONS)
    vectors = np.array(embedded["vectors"])
    assert vectors.shape == (2, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    served, kept = vectors[1], stored[listed[0]["item_id"]]  # texts come first
    assert 1 - served @ kept < 1e-5
    np.testing.assert_allclose(served, kept, atol=1e-5)


def test_a_filter_keeps_what_fits(client: httpx.Client, listed: list[Json], photo: bytes) -> None:
    kept, dropped = listed[0]["attributes"]["category"], listed[0]["attributes"]["seller"]
    where = {"category": {"in": [kept]}, "seller": {"not": [dropped]}, "price": {"gte": 1, "lte": 5000}}
    text = json.dumps(where)
    shelves = [
        similar(client, listed[0]["item_id"], k=50, filter=text),
        search(client, text="dress", k=50, filter=where),
        answer(
            client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={"filter": text, "k": "50"})
        ),
    ]
    for shelf in shelves:
        assert shelf["items"]
        for item in shelf["items"]:
            attributes = item["attributes"]
            assert attributes["category"] == kept
            assert attributes["seller"] != dropped
            assert 1 <= attributes["price"] <= 5000
    assert set(ids(shelves[0])) == set(ids(shelves[1])) == set(ids(shelves[2]))


def test_a_filter_that_nothing_fits_finds_nothing(client: httpx.Client) -> None:
    assert search(client, text="dress", filter={"category": {"in": ["submarines"]}})["items"] == []


SEARCH_ERRORS: dict[str, tuple[Json, int, str]] = {
    "no query": ({}, 422, "search: exactly one of text, image, vector is needed, got none"),
    "two queries": ({"text": "a", "vector": [1.0]}, 422, "needed, got text, vector"),
    "blank words": ({"text": " "}, 422, "text: is empty; give some words"),
    "unknown field": ({"txt": "a"}, 422, "txt: extra inputs are not permitted"),
    "k = 0": ({"text": "a", "k": 0}, 422, "k: 1 to 100, got 0"),
    "k too large": ({"text": "a", "k": 101}, 422, "k: 1 to 100, got 101"),
    "k no number": ({"text": "a", "k": "many"}, 422, "k: input should be a valid integer"),
    "bad base64": ({"image_base64": "%%%"}, 422, "image_base64: not base64"),
    "no photo in base64": ({"image_base64": "aGVsbG8="}, 415, "not a photo (5 bytes)"),
    "no space id": ({"vector": [1.0]}, 422, "space_id: is needed with vector"),
    "zero vector": ({"vector": [0.0] * DIMENSIONS, "space_id": "THIS"}, 422, "got one of length 0"),
    "short vector": ({"vector": [1.0] * 3, "space_id": "THIS"}, 422, "16 numbers are needed, got 3"),
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
        "another type than the attribute's",
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
def test_a_wrong_search_is_refused_in_one_line(client: httpx.Client, ready: Json, case: str) -> None:
    body, status, message = SEARCH_ERRORS[case]
    if body.get("space_id") == "THIS":
        body = {**body, "space_id": ready["space_id"]}
    assert_error(client.post("/v1/search", json=body), status, message)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_vector_of_no_finite_length_is_refused(client: httpx.Client, ready: Json, number: str) -> None:
    vector = ", ".join([number] * DIMENSIONS)
    body = f'{{"vector": [{vector}], "space_id": "{ready["space_id"]}"}}'
    assert_error(client.post("/v1/search", content=body, headers=JSON_TYPE), 422, "vector: ")


def test_json_that_is_none_is_refused(client: httpx.Client) -> None:
    for path in ("/v1/search", "/v1/embed"):
        assert_error(client.post(path, content="{", headers=JSON_TYPE), 422, "body: invalid json")


def test_wrong_content_types_are_refused(client: httpx.Client) -> None:
    for path in ("/v1/search", "/v1/embed"):
        response = client.post(path, content="red dress", headers={"content-type": "text/plain"})
        assert_error(response, 415, "got 'text/plain'", "unsupported_media_type")
    assert_error(client.post("/v1/search", content=b"x"), 415, "content-type", "unsupported_media_type")


def test_an_upload_that_is_no_photo_is_refused(client: httpx.Client, photo: bytes) -> None:
    for data in (b"", b"hello", photo[: len(photo) // 2]):
        response = client.post("/v1/search", files={"image": ("a.jpg", data)})
        assert_error(response, 415, "photo", "unreadable_image")
    missing = client.post("/v1/search", files={"picture": ("a.jpg", photo)})
    assert_error(missing, 422, "image: a file is needed in the multipart field 'image'")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("k", "0", "k: 1 to 100, got 0"),
        ("k", "many", "k: input should be a valid integer"),
        ("filter", "{", "filter: not JSON"),
        ("filter", "[1]", "filter: input should be an object"),
    ],
)
def test_wrong_fields_beside_a_photo_are_refused(
    client: httpx.Client, photo: bytes, field: str, value: str, message: str
) -> None:
    response = client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={field: value})
    assert_error(response, 422, message)


def test_too_much_is_refused(client: httpx.Client) -> None:
    big = b"0" * 15_000_000  # serve.max_image_megabytes is 10, as base64 14
    message = "15.0 MB, at most 10 MB are accepted"
    assert_error(client.post("/v1/search", files={"image": ("a.jpg", big)}), 413, message)
    for path in ("/v1/search", "/v1/embed"):
        assert_error(client.post(path, content=big, headers=JSON_TYPE), 413, message)


def test_wrong_questions_about_an_item_are_refused(client: httpx.Client, listed: list[Json]) -> None:
    known = f"/v1/items/{listed[0]['item_id']}/similar"
    for path in ("/v1/items/nobody/similar", "/v1/items/nobody/photo"):
        assert_error(client.get(path), 404, "item 'nobody' is not in the index of 150 items")
    assert_error(client.get(known, params={"k": 0}), 422, "k: 1 to 100, got 0")
    assert_error(client.get(known, params={"k": "x"}), 422, "k: input should be a valid integer")
    assert_error(client.get(known, params={"filter": "{"}), 422, "filter: not JSON")
    assert_error(client.get(known, params={"filter": "[1]"}), 422, "filter: an object like")
    assert_error(client.get("/v1/items", params={"limit": 0}), 422, "limit: input should be greater")


def test_a_wrong_embedding_request_is_refused(client: httpx.Client) -> None:
    for body in ({}, {"texts": ["a"] * 65}):
        assert_error(client.post("/v1/embed", json=body), 422, "1 to 64 in all")
    assert_error(client.post("/v1/embed", json={"texts": [""]}), 422, "text: is empty")
    wrong = client.post("/v1/embed", json={"images_base64": ["aGVsbG8="]})
    assert_error(wrong, 415, "not a photo", "unreadable_image")


def test_unknown_routes_and_methods_answer_like_every_error(client: httpx.Client) -> None:
    for path in ("/v1/nothing", "/page/nothing.css", "/page/index.html.py"):
        assert_error(client.get(path), 404, "")
    assert_error(client.get("/v1/search"), 405, "Method Not Allowed")
    assert_error(client.put("/v1/items"), 405, "Method Not Allowed")


def test_searches_at_the_same_time_answer_as_one_by_one(client: httpx.Client, listed: list[Json]) -> None:
    photos = [client.get(item["image_url"]).content for item in listed]

    def find(photo: bytes) -> Json:
        return answer(client.post("/v1/search", files={"image": ("a.jpg", photo)}, data={"k": "5"}))

    one_by_one = [find(photo) for photo in photos]
    with concurrent.futures.ThreadPoolExecutor(len(photos)) as threads:
        together = list(threads.map(find, photos, timeout=60))
    for alone, crowded in zip(one_by_one, together, strict=True):
        assert ids(crowded) == ids(alone)
        assert scores(crowded) == pytest.approx(scores(alone), abs=1e-5)


def similar(client: httpx.Client, item_id: str, **parameters: Json) -> Json:
    return answer(client.get(f"/v1/items/{item_id}/similar", params=parameters))


def search(client: httpx.Client, **body: Json) -> Json:
    return answer(client.post("/v1/search", json=body))


def answer(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    return response.json()


def ids(shelf: Json) -> list[str]:
    return [item["item_id"] for item in shelf["items"]]


def scores(shelf: Json) -> list[float]:
    return [item["score"] for item in shelf["items"]]


def assert_shelf(shelf: Json, ready: Json, k: int) -> None:
    assert (shelf["space_id"], shelf["index_version"]) == (ready["space_id"], ready["index_version"])
    assert shelf["arm"] == "default"
    assert len(shelf["exposure_id"]) == 32
    assert len(set(ids(shelf))) == len(shelf["items"]) == k
    assert scores(shelf) == sorted(scores(shelf), reverse=True)
    for item in shelf["items"]:
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
