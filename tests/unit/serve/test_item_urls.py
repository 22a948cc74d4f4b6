"""Every item of an index is reachable over HTTP, whatever characters its id contains."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
from pydantic import ValidationError

from raysys.config.schema import ServeConfig
from raysys.serve.item_urls import photo_url
from tests.unit.serve.conftest import ITEM_IDS, Service, photos


@pytest.mark.parametrize("item_id", ITEM_IDS, ids=ascii)
def test_item_and_its_photo_are_reachable(service: Service, item_id: str) -> None:
    url = photo_url(item_id, None)
    similar = service.get(url.removesuffix("photo") + "similar?k=3")
    assert similar.status_code == 200, similar.text
    assert similar.json()["query"]["item_id"] == item_id
    assert similar.json()["query"]["image_url"] == url
    assert service.get(url).content == photos()[ITEM_IDS.index(item_id)]


@pytest.mark.parametrize("item_id", [i for i in ITEM_IDS if i not in (".", "..")], ids=ascii)
def test_percent_encoding_is_enough_for_every_id_that_is_no_dot_segment(
    service: Service, item_id: str
) -> None:
    response = service.get(f"/v1/items/{quote(item_id, safe='')}/similar", params={"k": 1})
    assert response.json()["query"]["item_id"] == item_id


@pytest.mark.parametrize("item_id", ITEM_IDS, ids=ascii)
@pytest.mark.parametrize("template", ["https://img.example.com/s/{item_id}.jpg?w=200", "/p?id={item_id}"])
def test_image_url_is_a_url_that_decodes_to_the_id(template: str, item_id: str) -> None:
    url = photo_url(item_id, template)
    assert url.isascii()
    assert not set(url.replace(template.partition("{")[0], "")) & set(' #"<>\\\n')
    parts = urlsplit(url)
    if parts.query.startswith("id="):
        assert httpx.QueryParams(parts.query)["id"] == item_id
    else:
        assert parts.query == "w=200"
        assert unquote(parts.path) == f"/s/{item_id}.jpg"
        assert parts.path.count("/") == 2


def test_every_response_uses_the_template(serve_with: Callable[..., Service]) -> None:
    service = serve_with(image_url="https://img.example.com/{item_id}.jpg")
    similar = service.get("/v1/items/a%2Fb/similar").json()
    assert similar["query"]["image_url"] == "https://img.example.com/a%2Fb.jpg"
    searched = service.post("/v1/search", json={"text": "dress", "k": 100}).json()
    listed = service.get("/v1/items", params={"limit": 100}).json()
    for items in (similar["items"], searched["items"], listed["items"]):
        for item in items:
            assert item["image_url"] == f"https://img.example.com/{quote(item['item_id'], safe='')}.jpg"
    assert {item["item_id"] for item in listed["items"]} == set(ITEM_IDS)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("nothing/similar", "item 'nothing'"),
        ("/similar", "item ''"),
        ("a%0A%0Db/photo", r"item 'a\n\rb'"),
        ("%E2%80%AEx/photo", r"item '\u202ex'"),
        ("%FF/photo", "item '\ufffd'"),
        ("%00/photo", r"item '\x00'"),
    ],
)
def test_unknown_item_is_an_error_of_one_line(service: Service, path: str, shown: str) -> None:
    response = service.get(f"/v1/items/{path}")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": "not_found",
        "message": f"{shown} is not in the index; check the id",
    }


def test_very_long_unknown_id_is_cut_in_the_message(service: Service) -> None:
    message = service.get(f"/v1/items/{'x' * 5000}/similar").json()["error"]["message"]
    assert len(message) <= 1000
    assert message.startswith("item 'xxx")
    assert message.endswith("xxx' is not in the index; check the id")


def test_template_without_the_id_is_an_error() -> None:
    with pytest.raises(ValidationError, match="image_url"):
        ServeConfig(image_url="https://img.example.com/photo.jpg")
