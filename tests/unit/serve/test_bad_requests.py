"""Whatever a request contains, the response is a result or `{"error": {"code", "message"}}` with the right status."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from raysys.errors import UnreadableImage
from raysys.index.items import IndexedItem
from raysys.index.search import Neighbour
from raysys.serve.index_service import SearchResult
from tests.factories import photo
from tests.unit.serve.conftest import DIMENSIONS, ITEM_IDS, SPACE_ID, Service

CODES = {
    400: "http_error",
    404: "not_found",
    405: "method_not_allowed",
    409: "space_mismatch",
    413: "too_large",
    422: "invalid_input",
}
JSON_TYPE = {"content-type": "application/json"}
PHOTO = photo()
PART_HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
DEEP = "[" * 50_000


def vector_body(numbers: str) -> str:
    return f'{{"vector": {numbers}, "space_id": "{SPACE_ID}"}}'


def form_body(*parts: tuple[str, bytes], boundary: str = "b") -> dict[str, Any]:
    """The options of a request with a hand-made multipart body."""
    body = b"".join(
        b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), data)
        for head, data in parts
    )
    return {"content": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


# JSON of a search -> status and a part of the message.
SEARCH_BODIES: dict[str, tuple[str, int, str]] = {
    "empty": ("", 422, "body: invalid json"),
    "cut": ('{"text": "a"', 422, "body: invalid json"),
    "null": ("null", 422, "body: input should be an object"),
    "list": ("[]", 422, "body: input should be an object"),
    "text": ('"red dress"', 422, "body: input should be an object"),
    "deep": (DEEP, 422, "body: invalid json: recursion limit"),
    "deep filter": (f'{{"text": "a", "filter": {DEEP}', 422, "body: invalid json: recursion limit"),
    "not utf-8": ('{"text": "\udcff"}', 422, "body: invalid json"),
    "unpaired surrogate": ('{"text": "\\ud800"}', 422, "body: invalid json"),
    "control character in a name": ('{"te\\nxt\\u202e": 1}', 422, r"te\nxt\u202e: extra inputs"),
    "long name": (f'{{"{"x" * 100_000}": 1}}', 422, "xxx"),
    "many names": (json.dumps({f"x{n}": 1 for n in range(10_000)}), 422, "x0: extra inputs"),
    "text of another type": ('{"text": 3}', 422, "text: input should be a valid string"),
    "texts": ('{"text": ["a"]}', 422, "text: input should be a valid string"),
    "long text": (f'{{"text": "{"a" * 1001}"}}', 422, "text: string should have at most 1000"),
    "image of another type": ('{"image_base64": 3}', 422, "image_base64: input should be a valid string"),
    "image no base64": ('{"image_base64": "%%%"}', 422, "image_base64: not base64"),
    "image no ASCII": ('{"image_base64": "写真"}', 422, "image_base64: not base64"),
    "image with wrong padding": ('{"image_base64": "YQ="}', 422, "image_base64: not base64"),
    "k 0": ('{"text": "a", "k": 0}', 422, "k: must be 1 to 100, got 0"),
    "k negative": ('{"text": "a", "k": -1}', 422, "k: must be 1 to 100, got -1"),
    "k text": ('{"text": "a", "k": "many"}', 422, "k: input should be a valid integer"),
    "k boolean": ('{"text": "a", "k": true}', 422, "k: input should be a valid integer"),
    "k fraction": ('{"text": "a", "k": 1.5}', 422, "k: input should be a valid integer"),
    "k NaN": ('{"text": "a", "k": NaN}', 422, "k: input should be"),
    "k 1e400": ('{"text": "a", "k": 1e400}', 422, "k: input should be"),
    "k of 4000 digits": (f'{{"text": "a", "k": {"9" * 4000}}}', 422, "k: must be 1 to 100, got 999"),
    "k of 5000 digits": (f'{{"text": "a", "k": {"9" * 5000}}}', 422, "body: invalid json"),
    "filter list": ('{"text": "a", "filter": []}', 422, "filter: input should be an object"),
    "filter text": ('{"text": "a", "filter": "{}"}', 422, "filter: input should be an object"),
    "condition list": ('{"text": "a", "filter": {"price": [1]}}', 422, "'price' needs an object"),
    "condition empty": ('{"text": "a", "filter": {"price": {}}}', 422, "'price' needs an object"),
    "in number": ('{"text": "a", "filter": {"price": {"in": 1}}}', 422, "'in' needs a list"),
    "gte text": ('{"text": "a", "filter": {"price": {"gte": "1"}}}', 422, "'gte' needs a number"),
    "gte null": ('{"text": "a", "filter": {"price": {"gte": null}}}', 422, "'gte' needs a number"),
    "gte boolean": ('{"text": "a", "filter": {"price": {"gte": true}}}', 422, "'gte' needs a number"),
    "gte NaN": ('{"text": "a", "filter": {"price": {"gte": NaN}}}', 422, "'gte' needs a number"),
    "gte of a text": ('{"text": "a", "filter": {"category": {"gte": 1}}}', 422, "different types"),
    "no such attribute": ('{"text": "a", "filter": {"size": {"in": []}}}', 422, "no attribute 'size'"),
    "no space id": ('{"vector": [1, 0, 0, 0]}', 422, "space_id: is required"),
    "space id of another type": ('{"vector": [1], "space_id": 3}', 422, "space_id: input should be"),
    "other space": ('{"vector": [1, 0, 0, 0], "space_id": "x"}', 409, "embedding space"),
    "unit of another type": ('{"text": "a", "unit": 3}', 422, "unit: input should be a valid string"),
    "vector empty": (vector_body("[]"), 422, "vector: list should have at least 1 item"),
    "vector no list": (vector_body("1"), 422, "vector: input should be a valid array"),
    "vector object": (vector_body('{"0": 1}'), 422, "vector: input should be a valid array"),
    "vector nested": (vector_body("[[1, 0, 0, 0]]"), 422, "vector.0: input should be a valid number"),
    "vector of texts": (vector_body('["1", "0", "0", "0"]'), 422, "vector.0: input should be a valid number"),
    "vector of booleans": (vector_body("[1, true, 0, 0]"), 422, "vector.1: input should be a valid number"),
    "vector of nulls": (vector_body("[1, null, 0, 0]"), 422, "vector.1: input should be a valid number"),
    "vector NaN": (vector_body("[1, NaN, 0, 0]"), 422, "vector: must be finite"),
    "vector infinite": (vector_body("[1, -Infinity, 0, 0]"), 422, "vector: must be finite"),
    "vector 1e400": (vector_body("[1, 1e400, 0, 0]"), 422, "vector: must be finite"),
    "vector of huge integers": (vector_body(f"[1, 1{'0' * 400}, 0, 0]"), 422, "vector"),
    "vector zero": (vector_body("[0, 0, -0.0, 0]"), 422, "not all zero"),
    "vector short": (vector_body("[1, 0]"), 422, "vector: 4 numbers are required, got 2"),
    "vector long": (vector_body(str([1] * 200_000)), 422, "vector: 4 numbers are required, got 200000"),
    "vector of many texts": (vector_body(json.dumps(["a"] * 200_000)), 422, "vector.0: input should be"),
}

# The body of an embedding as JSON.
EMBED_BODIES: dict[str, tuple[str, int, str]] = {
    "empty": ("", 422, "body: invalid json"),
    "deep": (DEEP, 422, "body: invalid json: recursion limit"),
    "nothing": ("{}", 422, "1 to 64 in total, got 0"),
    "too many": (json.dumps({"texts": ["a"] * 65}), 422, "1 to 64 in total, got 65"),
    "texts no list": ('{"texts": "a"}', 422, "texts: input should be a valid array"),
    "texts null": ('{"texts": null}', 422, "texts: input should be a valid array"),
    "numbers": ('{"texts": [1]}', 422, "texts.0: input should be a valid string"),
    "many numbers": (json.dumps({"texts": [1] * 200_000}), 422, "texts.0: input should be a valid string"),
    "blank": ('{"texts": ["a", " "]}', 422, "text: is empty"),
    "no base64": ('{"images_base64": ["%"]}', 422, "images_base64.0: not base64"),
    "unknown": ('{"texts": ["a"], "text": "a"}', 422, "text: extra inputs"),
}

# Other requests: method, URL, options, status, a part of the message.
REQUESTS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "parameter in the URL": ("POST", "/v1/search?k=3", {"json": {"text": "a"}}, 422, "k: is in the URL"),
    "parameter of embed": ("POST", "/v1/embed?k=3", {"json": {"texts": ["a"]}}, 422, "k: is in the URL"),
    "no boundary": (
        "POST",
        "/v1/search",
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "boundary",
    ),
    "other boundary": ("POST", "/v1/search", form_body(boundary="c"), 422, "image: a file is required"),
    "garbage in a form": (
        "POST",
        "/v1/search",
        {"content": b"x" * 100, "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
        "",
    ),
    "form without a photo": (
        "POST",
        "/v1/search",
        {"files": {"picture": PHOTO}},
        422,
        "image: a file is required",
    ),
    "photo as a text": ("POST", "/v1/search", {"files": {"image": (None, "a")}}, 422, "image: a file"),
    "two photos": (
        "POST",
        "/v1/search",
        {"files": [("image", PHOTO), ("image", PHOTO)]},
        422,
        "image: a file is required in the multipart field 'image', exactly one",
    ),
    "no items": ("GET", "/v1/items?limit=0", {}, 422, "limit: input should be greater than or equal to 1"),
    "too many items": ("GET", "/v1/items?limit=101", {}, 422, "limit: input should be less"),
    "limit of another type": ("GET", "/v1/items?limit=x", {}, 422, "limit: input should be a valid integer"),
    "negative seed": ("GET", "/v1/items?seed=-1", {}, 422, "seed: input should be greater"),
    "seed of 5000 digits": ("GET", f"/v1/items?seed={'9' * 5000}", {}, 422, "seed: "),
    "unknown parameter": ("GET", "/v1/items?limt=3", {}, 422, "limt: extra inputs are not permitted"),
    "similar k": ("GET", "/v1/items/m1/similar?k=101", {}, 422, "k: must be 1 to 100, got 101"),
    "similar k text": ("GET", "/v1/items/m1/similar?k=1.5", {}, 422, "k: input should be a valid integer"),
    "similar unknown": ("GET", "/v1/items/m1/similar?filtr={}", {}, 422, "filtr: extra inputs"),
    "similar filter": ("GET", "/v1/items/m1/similar?filter={", {}, 422, "filter: not JSON"),
    "similar filter list": ("GET", "/v1/items/m1/similar?filter=[1]", {}, 422, "filter: an object like"),
    "similar deep filter": (
        "GET",
        f"/v1/items/m1/similar?filter={DEEP}",
        {},
        422,
        "filter: not JSON (recursion limit",
    ),
    "similar filter surrogate": (
        "GET",
        '/v1/items/m1/similar?filter={"\\ud800":{"in":[]}}',
        {},
        422,
        "filter: ",
    ),
    "similar filter NaN": ("GET", '/v1/items/m1/similar?filter={"price":{"gte":NaN}}', {}, 422, "filter: "),
    "item unknown": ("GET", "/v1/items/nothing/photo", {}, 404, "item 'nothing' is not in the index"),
    "route unknown": ("GET", "/v1/nothing", {}, 404, "Not Found"),
    "page file": ("GET", "/page/..%2Fgateway.py", {}, 404, ""),
    "method": ("PATCH", "/v1/items/m1/similar", {}, 405, "Method Not Allowed"),
}
FORM_FIELDS: dict[str, tuple[dict[str, str], str]] = {
    "k 0": ({"k": "0"}, "k: must be 1 to 100, got 0"),
    "k text": ({"k": "many"}, "k: input should be a valid integer"),
    "k empty": ({"k": ""}, "k: input should be a valid integer"),
    "filter cut": ({"filter": "{"}, "filter: not JSON"),
    "filter deep": ({"filter": DEEP}, "filter: not JSON (recursion limit"),
    "filter NaN": ({"filter": '{"price": {"gte": NaN}}'}, "filter: not JSON"),
    "filter list": ({"filter": "[1]"}, "filter: input should be an object"),
    "a text, too": ({"text": "a"}, "search: exactly one of text, image, vector is required, got image, text"),
    "base64, too": ({"image_base64": "aGVsbG8="}, "is required, got image, image_base64"),
    "a vector, too": ({"vector": "[1]"}, "vector: input should be a valid array"),
    "unknown": ({"K": "3"}, "K: extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", SEARCH_BODIES)
def test_invalid_search(service: Service, case: str) -> None:
    body, status, message = SEARCH_BODIES[case]
    content = body.encode("utf-8", "surrogateescape")
    assert_error(service.post("/v1/search", content=content, headers=JSON_TYPE), status, message)


@pytest.mark.parametrize("case", EMBED_BODIES)
def test_invalid_embedding(service: Service, case: str) -> None:
    body, status, message = EMBED_BODIES[case]
    assert_error(service.post("/v1/embed", content=body, headers=JSON_TYPE), status, message)


@pytest.mark.parametrize("case", REQUESTS)
def test_invalid_request(service: Service, case: str) -> None:
    method, url, options, status, message = REQUESTS[case]
    assert_error(service.request(method, url, **options), status, message)


@pytest.mark.parametrize("case", FORM_FIELDS)
def test_invalid_form_field(service: Service, case: str) -> None:
    fields, message = FORM_FIELDS[case]
    response = service.post("/v1/search", files={"image": ("a.jpg", PHOTO)}, data=fields)
    assert_error(response, 422, message)


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")  # Starlette leaves it to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_truncated_form(service: Service) -> None:
    form = form_body(('name="k"', b"3"), ('name="image"; filename="a.jpg"', PHOTO))
    for end in range(0, len(form["content"]), 7):
        response = service.post("/v1/search", **form | {"content": form["content"][:end]})
        assert_error(response, 422, "image: a file is required")


@pytest.mark.parametrize("path", ["/v1/search", "/v1/embed"])
@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "image/jpeg", "json", ";"]
)
def test_other_content_type(service: Service, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    response = service.post(path, content=b'{"text": "a"}', headers=headers)
    assert_error(response, 415, "content-type: ", "unsupported_media_type")


@pytest.mark.parametrize("data", [b"", b"hello", PHOTO[: len(PHOTO) // 2], b"<svg/>", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_photo(service: Service, data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    for response in (
        service.post("/v1/search", files={"image": ("a.jpg", data)}),
        service.post("/v1/search", json={"image_base64": encoded}),
        service.post("/v1/embed", json={"images_base64": [encoded]}),
    ):
        assert_error(response, 415, "photo", UnreadableImage.code)


@pytest.mark.parametrize("scale", [1.0, 7.5, 1e-300, 1e308, 5e-324])
def test_vector_of_any_length_is_normalised(service: Service, scale: float) -> None:
    vector = [scale, -scale, 0, scale]
    found = service.post("/v1/search", json={"vector": vector, "space_id": SPACE_ID, "k": 100}).json()
    unit = service.post("/v1/search", json={"vector": [3, -3, 0, 3], "space_id": SPACE_ID, "k": 100}).json()
    assert [item["item_id"] for item in found["items"]] == [item["item_id"] for item in unit["items"]]
    scores = [item["score"] for item in found["items"]]
    assert len(scores) == len(ITEM_IDS)
    assert scores == pytest.approx([item["score"] for item in unit["items"]], abs=1e-6)
    assert all(-1.000001 <= score <= 1.000001 for score in scores)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_encoder_that_returns_no_numbers_is_an_error(service: Service, number: float) -> None:
    service.encoder.vector = np.full(DIMENSIONS, number, np.float32)
    for response in (
        service.post("/v1/search", json={"text": "a"}),
        service.post("/v1/search", files={"image": PHOTO}),
        service.post("/v1/embed", json={"texts": ["a"]}),
    ):
        assert_error(response, 500, "the vector of the query: contains NaN or infinity", "damaged_data")


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_score_is_never_null(service: Service, monkeypatch: pytest.MonkeyPatch, score: float) -> None:
    async def result(*_: Any) -> SearchResult:
        neighbours = [Neighbour(IndexedItem("m1", "a title", {}), score)]
        return SearchResult(await service.search.info(1), neighbours)

    monkeypatch.setattr(service.search, "similar", result)
    monkeypatch.setattr(service.search, "nearest", result)
    for response in (
        service.get("/v1/items/m1/similar"),
        service.post("/v1/search", json={"text": "a"}),
    ):
        assert_error(response, 500, "the scores: contains NaN or infinity", "damaged_data")


def test_photo_may_have_the_size_limit_but_not_one_byte_more(serve_with: Callable[..., Service]) -> None:
    service = serve_with(max_image_megabytes=len(PHOTO) / 1e6)
    limit = f"{len(PHOTO):,} are accepted"
    for data, status in ((PHOTO, 200), (PHOTO + b"\0", 413)):
        encoded = base64.b64encode(data).decode()
        for name, response in {
            "image": service.post("/v1/search", files={"image": ("a.jpg", data)}, data={"k": "3"}),
            "image_base64": service.post("/v1/search", json={"image_base64": encoded}),
            "images_base64.0": service.post("/v1/embed", json={"images_base64": [encoded]}),
        }.items():
            if status == 200:
                assert response.status_code == 200, response.text
            else:
                assert_error(response, 413, f"{name}: {len(data):,} bytes, at most {limit}")


@pytest.mark.parametrize(
    ("content_type", "limit", "head", "tail"),
    [
        ("application/json", 1_400_000, b"", b""),  # 0.3 MB, a third of it for base64, and 1 MB
        ("multipart/form-data; boundary=b", 1_300_000, PART_HEAD, b"\r\n--b--\r\n"),
    ],
)
def test_body_is_refused_at_the_limit_of_the_message(
    serve_with: Callable[..., Service], content_type: str, limit: int, head: bytes, tail: bytes
) -> None:
    service, headers = serve_with(max_image_megabytes=0.3), {"content-type": content_type}

    def body(num_bytes: int) -> bytes:
        return head + b" " * (num_bytes - len(head) - len(tail)) + tail

    async def chunks() -> AsyncIterator[bytes]:  # without a Content-Length
        yield body(limit + 1)[:-1]
        yield body(limit + 1)[-1:]

    for content in (body(limit + 1), chunks()):
        response = service.post("/v1/search", content=content, headers=headers)
        assert_error(response, 413, f"body: {limit + 1:,} bytes, at most {limit:,} are accepted")
    at_limit = service.post("/v1/search", content=body(limit), headers=headers).json()["error"]["message"]
    assert at_limit.startswith(("body: invalid json", "image: 1,29"))


def assert_error(response: httpx.Response, status: int, message: str, code: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == (code or CODES[status])
    assert message in error["message"]
    assert "Traceback" not in error["message"]
    assert error["message"].isprintable()
    assert len(error["message"]) < 1100
