"""Upserts and deletes over HTTP: durable when acknowledged, found soon after, and safe to send again."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from raysys.serve import metrics
from raysys.serve.versions import Versions, VersionsWatch
from tests.factories import photo
from tests.unit.serve.conftest import DIMENSIONS, ITEM_IDS, SPACE_ID, Service

RED, BLUE = photo((250, 0, 0)), photo((0, 0, 250))
WAIT_S = 10.0


@pytest.fixture
def service(serve_with: Callable[..., Service]) -> Service:
    return serve_with(has_store=True)


def put(service: Service, item_id: str, image: bytes = RED, **fields: Any) -> int:
    body = {"title": "new", "image_base64": base64.b64encode(image).decode(), **fields}
    response = service.request("PUT", f"/v1/items/{quote(item_id, safe='')}", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["item_id"] == item_id
    return int(response.json()["change"])


def wait_for(service: Service, change: int) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while (ready := service.get("/readyz").json())["last_change"] < change:
        assert time.monotonic() < deadline, ready
    return dict(ready)


def found(service: Service, image: bytes = RED, **fields: str) -> list[dict[str, Any]]:
    response = service.post("/v1/search", files={"image": image}, data={"k": "100", **fields})
    assert response.status_code == 200, response.text
    return list(response.json()["items"])


def test_new_item_is_found_with_everything_that_was_put(service: Service) -> None:
    num_before = service.get("/readyz").json()["num_items"]
    ready = wait_for(service, put(service, "a/new", attributes={"price": 7, "brand": "x"}))
    assert ready["num_items"] == num_before + 1
    first = found(service)[0]
    assert first["score"] == pytest.approx(1.0, abs=1e-5)
    assert first["item_id"] == "a/new"
    assert first["title"] == "new"
    assert first["attributes"] == {"brand": "x", "category": None, "price": 7}
    assert service.get(first["image_url"]).content == RED
    assert found(service, filter='{"brand": {"in": ["x"]}}') == [first]
    assert service.get("/v1/items/a%2Fnew/similar").json()["query"]["title"] == "new"


def test_put_replaces_an_indexed_item(service: Service) -> None:
    wait_for(service, put(service, ITEM_IDS[1]))
    items = found(service)
    assert [item["title"] for item in items if item["item_id"] == ITEM_IDS[1]] == ["new"]
    assert len(items) == len(ITEM_IDS)


def test_deleted_item_is_gone_whether_it_was_indexed_or_put(service: Service) -> None:
    put(service, "put")
    for item_id in ("put", "m1", "never known"):
        change = service.request("DELETE", f"/v1/items/{item_id}").json()["change"]
    wait_for(service, change)
    assert {item["item_id"] for item in found(service)} == {*ITEM_IDS} - {"m1"}
    assert service.get("/v1/items/m1/similar").status_code == 404
    assert service.get("/v1/items/put/photo").status_code == 404


def test_same_change_again_has_the_same_number(service: Service) -> None:
    first = put(service, "a")
    assert put(service, "a") == first
    assert put(service, "a", BLUE) == first + 1
    assert put(service, "a") == first + 2
    delete = service.request("DELETE", "/v1/items/a").json()
    assert service.request("DELETE", "/v1/items/a").json() == delete == {"item_id": "a", "change": first + 3}


def test_form_puts_what_json_puts(service: Service) -> None:
    change = put(service, "a", attributes={"price": 1.5}, group="g")
    form = {"title": "new", "attributes": '{"price": 1.5}', "group": "g"}
    response = service.request("PUT", "/v1/items/a", files={"image": RED}, data=form)
    assert response.json() == {"item_id": "a", "change": change}


def test_group_of_a_new_item_is_left_out_of_its_shelf(service: Service) -> None:
    put(service, "copy 1", group="g")
    wait_for(service, put(service, "copy 2", group="g"))
    shown = service.get("/v1/items/copy%201/similar", params={"k": 100}).json()["items"]
    assert {item["item_id"] for item in shown} == {*ITEM_IDS}


def test_batch_is_applied_whole_or_not_at_all(service: Service) -> None:
    good = {"kind": "upsert", "item_id": "b", "title": "b", "image_base64": base64.b64encode(RED).decode()}
    delete = {"kind": "delete", "item_id": "m1"}
    response = service.post("/v1/changes", json={"changes": [good, delete]})
    numbers = [change["change"] for change in response.json()["changes"]]
    assert numbers == [numbers[0], numbers[0] + 1]
    assert [change["item_id"] for change in response.json()["changes"]] == ["b", "m1"]
    bad = {**good, "item_id": "c", "image_base64": base64.b64encode(b"no photo").decode()}
    other = {**good, "item_id": "d"}
    assert service.post("/v1/changes", json={"changes": [other, bad]}).status_code == 415
    wait_for(service, numbers[1])
    assert {item["item_id"] for item in found(service)} == {*ITEM_IDS, "b"} - {"m1"}


def test_vector_can_stand_for_the_photo(serve_with: Callable[..., Service]) -> None:
    service = serve_with(has_store=True, has_encoder=False)
    vector = [2.0, *[0.0] * (DIMENSIONS - 1)]
    body = {"title": "v", "vector": vector, "space_id": SPACE_ID}
    response = service.request("PUT", "/v1/items/v", json=body)
    wait_for(service, response.json()["change"])
    search = service.post("/v1/search", json={"vector": vector, "space_id": SPACE_ID, "k": 1})
    assert search.json()["items"][0]["item_id"] == "v"
    assert service.get("/v1/items/v/photo").json()["error"]["message"] == (
        "item 'v' was put without a photo; put it again with one"
    )


def test_only_a_photo_asks_which_pairs_are_being_loaded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only photos are embedded for the other pairs; a call of the coordinator takes longer than the change."""
    asked: list[str] = []
    ask = VersionsWatch.asked

    async def noted(watch: VersionsWatch) -> Versions:
        asked.append("coordinator")
        return await ask(watch)

    monkeypatch.setattr(VersionsWatch, "asked", noted)
    body = {"title": "v", "vector": [1.0, *[0.0] * (DIMENSIONS - 1)], "space_id": SPACE_ID}
    assert service.request("PUT", "/v1/items/v", json=body).status_code == 200
    assert service.request("DELETE", "/v1/items/v").status_code == 200
    assert asked == []
    put(service, "p")
    assert asked == ["coordinator"]


def test_restarted_service_has_every_change(serve_with: Callable[..., Service], tmp_path: Path) -> None:
    change = put(serve_with(has_store=True, root=tmp_path), "kept")
    again = serve_with(has_store=True, root=tmp_path)
    assert again.get("/readyz").json()["last_change"] == change  # at once
    assert found(again)[0]["item_id"] == "kept"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "title: field required"),
        ({"title": "a"}, 422, "item 'x': a photo or a vector is required, exactly one of them"),
        ({"title": "a", "image_base64": "?"}, 422, "image_base64: not base64"),
        (
            {"title": "a", "vector": [1, 0], "space_id": SPACE_ID},
            422,
            "vector: 4 numbers are required, got 2",
        ),
        (
            {"title": "a", "vector": [1, 0, 0, 0], "space_id": "other"},
            409,
            "item 'x' is of embedding space other",
        ),
        ({"title": "a", "vector": [1, 0, 0, 0]}, 422, "space_id: is required with vector"),
        ({"title": "a\0", "vector": [1, 0, 0, 0], "space_id": SPACE_ID}, 422, "item 'x'"),
        ({"title": "a", "attributes": {"price": [1]}}, 422, "attributes.price"),
        ({"title": "a", "colour": "red"}, 422, "colour: extra inputs"),
    ],
)
def test_wrong_items_are_refused_and_not_kept(
    service: Service, body: dict[str, Any], status: int, message: str
) -> None:
    response = service.request("PUT", "/v1/items/x", json=body)
    assert (response.status_code, response.json()["error"]["message"].startswith(message)) == (
        status,
        True,
    ), response.text
    assert service.request("DELETE", "/v1/items/y").json()["change"] == 1


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"price": "cheap"}, "attribute 'price' is a number in the index, got a text ('cheap')"),
        ({"price": True}, "attribute 'price' is a number in the index, got a boolean (True)"),
        ({"category": 1}, "attribute 'category' is a text in the index, got a number (1)"),
        ({"category": False}, "attribute 'category' is a text in the index, got a boolean (False)"),
        ({"new": 2**63}, "attribute 'new' is 9223372036854775808; a text, a boolean or a finite number"),
    ],
)
def test_attribute_of_another_type_is_refused(
    service: Service, attributes: dict[str, Any], message: str
) -> None:
    item = {"title": "x", "image_base64": base64.b64encode(RED).decode(), "attributes": attributes}
    one = service.request("PUT", "/v1/items/x", json=item)
    changes = [{"kind": "delete", "item_id": "m1"}, {"kind": "upsert", "item_id": "x", **item}]
    for response in (one, service.post("/v1/changes", json={"changes": changes})):
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "invalid_input"
        assert response.json()["error"]["message"].startswith(f"item 'x': {message}")
    good = put(service, "x", attributes={"price": 9.5, "category": None, "new": "a"})
    assert good == 1


def test_first_item_with_a_new_attribute_decides_its_type(service: Service) -> None:
    wait_for(service, put(service, "a", attributes={"size": 42}))
    text = {"title": "b", "image_base64": base64.b64encode(RED).decode(), "attributes": {"size": "M"}}
    refused = service.request("PUT", "/v1/items/b", json=text).json()["error"]["message"]
    assert refused.startswith("item 'b': attribute 'size' is a number in the index, got a text ('M')")
    wait_for(service, put(service, "a", attributes={"size": "L"}))  # no other item has it
    put(service, "b", attributes={"size": "M"})


def test_items_of_one_request_have_one_type(service: Service) -> None:
    photo_base64 = base64.b64encode(RED).decode()
    a, b, corrected = (
        {
            "kind": "upsert",
            "item_id": item_id,
            "title": "new",
            "image_base64": photo_base64,
            "attributes": {"size": size},
        }
        for item_id, size in (("a", 42), ("b", "M"), ("a", "L"))
    )
    response = service.post("/v1/changes", json={"changes": [a, b]})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == (
        "item 'b': attribute 'size' is a text, and a number in item 'a'; give the attribute one type"
    )
    response = service.post("/v1/changes", json={"changes": [a, b, corrected]})
    assert [change["change"] for change in response.json()["changes"]] == [1, 2, 3]


def test_service_without_a_database_refuses_changes(serve_with: Callable[..., Service]) -> None:
    service = serve_with()
    body = {"title": "a", "image_base64": base64.b64encode(RED).decode()}
    for response in (
        service.request("PUT", "/v1/items/a", json=body),
        service.request("DELETE", "/v1/items/a"),
        service.post("/v1/changes", json={"changes": [{"kind": "delete", "item_id": "a"}]}),
    ):
        assert response.status_code == 409
        assert response.json()["error"]["code"] == "no_store"


def test_lag_of_a_change_is_a_metric(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[str, float]] = []
    monkeypatch.setattr(metrics, "record", lambda name, value, **_: recorded.append((name, value)))
    wait_for(service, put(service, "m1"))
    deadline = time.monotonic() + WAIT_S
    while len(lags := [value for name, value in recorded if "lag" in name]) < 2:
        assert time.monotonic() < deadline
    assert lags[0] == lags[1]  # the histogram, and the gauge of the last change
    assert 0 < lags[0] < 1000 * WAIT_S
