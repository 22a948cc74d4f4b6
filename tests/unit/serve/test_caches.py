"""What is not computed or sent twice: vectors of equal photos, neighbours and photos that a client has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from raysys.serve import metrics
from raysys.serve.conditional import is_known
from raysys.serve.vector_cache import VectorCache, photo_key
from tests.factories import photo
from tests.unit.serve.conftest import HashEncoder, Service

SIMILAR = "/v1/items/m1/similar"
RED, BLUE = photo((250, 0, 0)), photo((0, 0, 250))


class CountingEncoder(HashEncoder):
    """An encoder that counts the photos that it embeds."""

    num_photos = 0

    async def embed_pixels(
        self, generation: int, photos: list[np.ndarray], deadlines: list[float]
    ) -> list[np.ndarray]:
        self.num_photos += len(photos)
        return await super().embed_pixels(generation, photos, deadlines)


@pytest.mark.parametrize(("max_items", "num_embedded"), [(2, 2), (1, 3), (0, 4)])
def test_equal_photo_is_embedded_once_while_its_vector_is_kept(
    serve_with: Callable[..., Service], max_items: int, num_embedded: int
) -> None:
    encoder = CountingEncoder()
    service = serve_with(encoder=encoder, vector_cache_items=max_items)
    scores = []
    for image in (RED, RED, BLUE, RED):
        response = service.post("/v1/search", files={"image": image})
        scores.append([item["score"] for item in response.json()["items"]])
    assert encoder.num_photos == num_embedded
    assert scores[0] == scores[1] == scores[3] != scores[2]


def test_invalid_vector_is_not_kept(serve_with: Callable[..., Service]) -> None:
    encoder = HashEncoder()
    encoder.vector = np.full(4, np.nan, np.float32)
    service = serve_with(encoder=encoder)
    assert service.post("/v1/search", files={"image": RED}).status_code == 500
    encoder.vector = None
    assert service.post("/v1/search", files={"image": RED}).status_code == 200


def test_vectors_are_kept_for_one_space_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[str] = []
    monkeypatch.setattr(metrics, "record", lambda name, value, result: results.append(result))
    cache, vector = VectorCache(10), np.ones(2, np.float32)
    cache.put(photo_key(RED, "a"), vector)
    assert cache.get(photo_key(RED, "a")) is vector
    assert cache.get(photo_key(RED, "b")) is None
    assert results == ["hit", "miss"]


def test_known_neighbours_are_not_searched_again(service: Service) -> None:
    first = service.get(SIMILAR)
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = service.get(SIMILAR, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    for url in (f"{SIMILAR}?k=3", f"{SIMILAR}?include_group=true", "/v1/items/a%2Fb/similar"):
        other = service.get(url, headers={"If-None-Match": etag})
        assert other.status_code == 200
        assert other.headers["ETag"] != etag


def test_change_of_an_item_gives_neighbours_another_etag(serve_with: Callable[..., Service]) -> None:
    service = serve_with(has_store=True)
    etag = service.get(SIMILAR).headers["ETag"]
    change = service.request("DELETE", "/v1/items/a%2Fb").json()["change"]
    while service.get("/readyz").json()["last_change"] < change:
        pass
    assert service.get(SIMILAR, headers={"If-None-Match": etag}).status_code == 200


def test_known_photo_is_not_sent_again(service: Service) -> None:
    first = service.get("/v1/items/m1/photo")
    again = service.get("/v1/items/m1/photo", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = service.get("/v1/items/0/photo", headers={"If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), ("", False), ("*", True), ('"a"', True), ('W/"a"', True), ('"b", W/"a"', True), ('"b"', False)],
)  # fmt: skip
def test_if_none_match_is_read_as_a_list(header: str | None, expected: bool) -> None:
    assert is_known('W/"a"', header) is expected
