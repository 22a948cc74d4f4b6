"""The request and the result of every call, on both clients."""

from __future__ import annotations

import base64
import inspect
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx
import numpy as np
import pytest
from PIL import Image

import raysys
from raysys.encoder.preprocess import ImagePreprocessing, photo_pixels
from raysys.errors import InputError, MissingError, RaysysError, UnreadableImage
from tests.factories import photo
from tests.unit.client.conftest import Send, Service
from tests.unit.serve.conftest import ITEM_IDS

ITEM = {"item_id": "m1", "title": "red cup", "attributes": {"price": 5}, "image_url": "/v1/items/m1/photo"}
SHELF = {"exposure_id": "e1", "arm": "default", "space_id": "5" * 64, "index_version": "d1.0"}
FOUND = httpx.Response(200, json={**SHELF, "items": [{**ITEM, "score": 0.5}]})
PHOTO = photo("red")
PHOTO_BASE64 = base64.b64encode(PHOTO).decode()


def changed(*item_ids: str) -> httpx.Response:
    changes = [{"item_id": item_id, "change": 7 + number} for number, item_id in enumerate(item_ids)]
    return httpx.Response(200, json={"changes": changes})


def test_similar_items(send: Send) -> None:
    service = Service(httpx.Response(200, json={**SHELF, "query": ITEM, "items": [{**ITEM, "score": 0.5}]}))
    where = {"price": {"lte": np.int64(3000)}, "seller": {"in": ["シャツ"]}}
    shelf = send(
        service, "similar", "a/b", k=3, where=where, unit="u 1", include_group=True, max_per={"seller": 2}
    )
    method, path, body = service.sent
    assert (method, path.partition("?")[0], body) == ("GET", "/v1/items/a%2Fb/similar", None)
    parameters = {name: value for name, (value,) in parse_qs(path.partition("?")[2]).items()}
    assert json.loads(parameters.pop("filter")) == {"price": {"lte": 3000}, "seller": {"in": ["シャツ"]}}
    assert parameters == {"k": "3", "unit": "u 1", "include_group": "true", "max_per": '{"seller": 2}'}
    assert (shelf.exposure_id, shelf.arm, shelf.space_id, shelf.index_version) == tuple(SHELF.values())
    assert (shelf.query.item_id, shelf.query.title) == ("m1", "red cup")
    (neighbour,) = shelf.items
    assert (neighbour.item_id, neighbour.score, neighbour.attributes) == ("m1", 0.5, {"price": 5})


def test_arguments_that_are_not_given_are_not_sent(send: Send) -> None:
    service = Service(FOUND)
    assert send(service, "similar", "m1").query is None
    assert service.sent == ("GET", "/v1/items/m1/similar", None)


@pytest.mark.parametrize("item_id", ITEM_IDS, ids=ascii)
def test_every_item_id_is_one_segment_of_the_path(item_id: str) -> None:
    service = Service(httpx.Response(200, content=PHOTO, headers={"Content-Type": "image/jpeg"}))
    with raysys.Client("http://h/shop/", transport=httpx.MockTransport(service)) as client:
        assert client.photo(item_id) == PHOTO
    _, path, _ = service.sent
    encoded = (
        path.removeprefix("/shop/v1/items/")
        .removesuffix("photo")
        .removesuffix("/")
        .removesuffix("%2F" * (item_id in (".", "..")))
    )
    assert unquote(encoded) == item_id
    assert "/" not in encoded


def test_search_by_text(send: Send) -> None:
    service = Service(FOUND)
    shelf = send(
        service,
        "search",
        text="red dress",
        k=2,
        where={"price": {"gte": 1}},
        unit="u",
        max_per={"seller": 2},
        include_group=True,
    )
    assert service.sent == ("POST", "/v1/search", {
        "text": "red dress", "k": 2, "filter": {"price": {"gte": 1}}, "unit": "u", "max_per": {"seller": 2}, "include_group": True,
    })  # fmt: skip
    assert service.requests[0].headers["content-type"] == "application/json"
    assert [item.item_id for item in shelf.items] == ["m1"]


def test_search_by_photo(send: Send, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    for image in (PHOTO, tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        service = Service(FOUND)
        send(service, "search", image=image)
        assert service.sent == ("POST", "/v1/search", {"image_base64": PHOTO_BASE64})


def test_search_by_a_vector_with_its_space(send: Send) -> None:
    service = Service(FOUND)
    send(service, "search", raysys.Embeddings(np.array([[0.6, 0.8]], np.float32), "5" * 64), k=1)
    _, _, body = service.sent
    assert body == {"vector": [pytest.approx(0.6), pytest.approx(0.8)], "space_id": "5" * 64, "k": 1}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "F", "LA", "1"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_opened_image_is_sent_with_the_pixels_that_an_encoder_would_see(
    mode: str, orientation: int
) -> None:
    values = np.random.default_rng(3).integers(0, 255, (40, 24, 3), np.uint8)
    image = Image.fromarray(values).convert("L" if mode == "I;16" else mode)
    image = image.convert("I;16") if mode == "I;16" else image
    if mode == "RGBA":
        image.putalpha(100)
    image.getexif()[0x0112] = orientation
    service = Service(FOUND)
    send_image = base64.b64decode(sent_image(service, image))
    preprocessing = ImagePreprocessing(size_px=16)
    np.testing.assert_array_equal(photo_pixels(send_image, preprocessing), photo_pixels(image, preprocessing))


def sent_image(service: Service, image: Image.Image) -> str:
    with raysys.Client("http://h", transport=httpx.MockTransport(service)) as client:
        client.search(image=image)
    text: str = service.sent[2]["image_base64"]
    return text


def test_unreadable_photos_are_refused_before_a_request(send: Send, tmp_path: Path) -> None:
    service = Service(FOUND)
    with pytest.raises(MissingError, match="missing.jpg"):
        send(service, "search", image=tmp_path / "missing.jpg")
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "JPEG")
    truncated = io.BytesIO(file.getvalue()[:2000])  # its header is intact
    with Image.open(truncated) as image, pytest.raises(UnreadableImage, match="cannot be decoded"):
        send(service, "search", image=image)
    assert service.requests == []


def test_vectors_of_texts_and_photos(send: Send) -> None:
    body = {"space_id": "5" * 64, "dimensions": 2, "vectors": [[1.0, 0.0], [0.0, 1.0]]}
    service = Service(httpx.Response(200, json=body))
    embeddings = send(service, "embed", ["red dress"], [PHOTO])
    assert service.sent == ("POST", "/v1/embed", {"texts": ["red dress"], "images_base64": [PHOTO_BASE64]})
    assert isinstance(embeddings, raysys.Embeddings)
    assert embeddings.array.dtype == np.float32
    assert embeddings.array.tolist() == [[1, 0], [0, 1]]
    assert (embeddings.space_id, embeddings.item_ids) == ("5" * 64, None)


def test_items_and_state(send: Send) -> None:
    service = Service(httpx.Response(200, json={"items": [ITEM]}))
    assert [item.image_url for item in send(service, "items", limit=1, seed=3)] == ["/v1/items/m1/photo"]
    assert service.sent == ("GET", "/v1/items?limit=1&seed=3", None)
    state = {
        "status": "ready",
        "space_id": "5",
        "index_version": "d1.0",
        "num_items": 9,
        "last_change": 0,
        "has_encoder": True,
    }
    service = Service(httpx.Response(200, json={**state, "new_field": 1}))
    assert send(service, "ready").model_dump() == state
    assert service.sent == ("GET", "/readyz", None)


def test_attributes(send: Send) -> None:
    values = [{"value": "bags", "count": 2}, {"value": "shoes", "count": 1}]
    body = {
        "category": {"kind": "text", "values": values, "num_values": 2},
        "price": {"kind": "number", "min": 5, "max": 9.5},
        "code": {"kind": "text"},
    }
    service = Service(httpx.Response(200, json={"index_version": "d1.0", "attributes": body}))
    attributes = send(service, "attributes")
    assert service.sent == ("GET", "/v1/attributes", None)
    assert {name: found.model_dump(exclude_none=True) for name, found in attributes.items()} == body
    assert (attributes["price"].max, attributes["code"].values) == (9.5, None)


@pytest.mark.parametrize("item_id", ["m1", "..", "a/b"])
def test_upsert_and_delete_return_the_number_of_the_change(send: Send, item_id: str) -> None:
    service = Service(changed(item_id))
    assert (
        send(service, "upsert", item_id, image=PHOTO, title="red cup", attributes={"price": np.float32(5)})
        == 7
    )
    assert service.sent == ("POST", "/v1/changes", {"changes": [{
        "kind": "upsert", "item_id": item_id, "image_base64": PHOTO_BASE64, "title": "red cup", "attributes": {"price": 5.0}, "group": "",
    }]})  # fmt: skip
    service = Service(changed(item_id))
    assert send(service, "delete", item_id) == 7
    assert service.sent == ("POST", "/v1/changes", {"changes": [{"kind": "delete", "item_id": item_id}]})


def test_several_changes_are_one_request(send: Send) -> None:
    service = Service(changed("m1", "m2"))
    changes = [raysys.Upsert("m1", PHOTO, "red cup", {}, group="g"), raysys.Delete("m2")]
    assert send(service, "apply", changes) == [7, 8]
    sent = service.sent[2]["changes"]
    assert [(change["kind"], change["item_id"], change.get("group")) for change in sent] == [
        ("upsert", "m1", "g"),
        ("delete", "m2", None),
    ]


INVALID: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str]] = {
    "no query": ("search", (), {"k": 3}, "exactly one of a vector, text= and image="),
    "two queries": ("search", (), {"text": "a", "image": b"b"}, "exactly one of a vector, text= and image="),
    "words as vector": ("search", ("red dress",), {}, "got str; write text=.."),
    "bare array": ("search", (np.zeros((1, 2)),), {}, "got ndarray"),
    "two vectors": ("search", (raysys.Embeddings(np.zeros((2, 2), np.float32), "5"),), {}, "one vector a call, got 2"),
    "one text": ("embed", ("red dress",), {}, "are lists"),
    "NaN in a filter": ("similar", ("m1",), {"where": {"price": {"lte": float("nan")}}}, "request: not JSON"),
    "no JSON value": ("search", (), {"text": "a", "where": {"price": {"in": {1}}}}, "got set"),
    "id that is not UTF-8": ("similar", ("\ud800",), {}, "item_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_invalid_arguments_are_refused_before_a_request(send: Send, case: str) -> None:
    name, args, kwargs, message = INVALID[case]
    service = Service(FOUND)
    with pytest.raises(InputError, match=message) as caught:
        send(service, name, *args, **kwargs)
    assert "\n" not in str(caught.value)
    assert service.requests == []


@pytest.mark.parametrize(
    ("name", "args", "body"),
    [
        ("similar", ("m1",), {**SHELF, "items": [ITEM]}),  # no score
        ("items", (), {}),
        ("attributes", (), {"index_version": "d1.0", "attributes": {"price": {"kind": "date"}}}),
        ("ready", (), {"status": "ready"}),
        ("embed", (["a"],), {"space_id": "5", "dimensions": 2, "vectors": []}),
        ("embed", (["a"],), {"space_id": "5", "dimensions": 2, "vectors": [[1.0]]}),
        ("delete", ("m1",), {"changes": [{"item_id": "m2", "change": 1}]}),
        ("delete", ("m1",), {"changes": []}),
    ],
)
def test_a_response_with_other_content_is_refused(send: Send, name: str, args: Any, body: Any) -> None:
    with pytest.raises(RaysysError, match="not a response of raysys"):
        send(Service(httpx.Response(200, json=body)), name, *args)


def test_both_clients_have_the_same_methods() -> None:
    def signatures(client: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(method))
            for name, method in vars(client).items()
            if not name.startswith("_") and name != "close"
        }

    assert signatures(raysys.Client) == signatures(raysys.AsyncClient)
    assert signatures(raysys.Client)["photo"] == "(self, item_id: 'str') -> 'bytes'"
    assert all(inspect.getdoc(getattr(raysys.Client, name)) for name in signatures(raysys.Client))


def test_importing_the_client_imports_no_heavy_library() -> None:
    script = (
        "import raysys, sys; raysys.Client; "
        "print(sorted({'ray', 'torch', 'faiss', 'pyarrow', 'fastapi', 'PIL', 'transformers'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(raysys.__file__).parents[1],
    )
    assert done.stdout == "[]\n", done.stderr


def test_write_examples_of_the_readme_run() -> None:
    readme = (Path(raysys.__file__).parent / "serve/README.md").read_text(encoding="utf-8")
    (example,) = [block for block in readme.split("```python\n")[1:] if "upsert" in block.partition("```")[0]]
    service = Service(changed("m1"), changed("m1"), changed("m1", "m2"))
    with raysys.Client("http://h", transport=httpx.MockTransport(service)) as client:
        exec(example.partition("```")[0], {"raysys": raysys, "client": client, "photo": PHOTO})
    assert len(service.requests) == 3
