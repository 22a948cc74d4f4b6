"""`max_per` and `include_group` over HTTP, in every kind of search."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.factories import photo
from tests.unit.serve.conftest import ITEM_IDS, Service

LIMITS = {"category": 2}


def categories(response: httpx.Response) -> Counter[Any]:
    assert response.status_code == 200, response.text
    return Counter(item["attributes"]["category"] for item in response.json()["items"])


def test_every_search_limits_the_items_of_a_value(service: Service) -> None:
    text = json.dumps(LIMITS)
    responses = [
        service.get("/v1/items/m1/similar", params={"k": 10, "max_per": text}),
        service.post("/v1/search", json={"text": "a", "k": 10, "max_per": LIMITS}),
        service.post("/v1/search", data={"k": "10", "max_per": text}, files={"image": photo()}),
    ]
    for response in responses:
        assert categories(response) == {"shoes": 2, "bags": 2}


def test_items_of_the_querys_group_are_left_out_unless_asked_for(service: Service) -> None:
    def ids(**parameters: Any) -> set[str]:
        response = service.get("/v1/items/a%2Fb/similar", params={"k": 100, **parameters})
        return {item["item_id"] for item in response.json()["items"]}

    assert ids() == {*ITEM_IDS} - {"a/b", "/a"}  # which are of one group
    assert ids(include_group="true") == {*ITEM_IDS} - {"a/b"}


@pytest.mark.parametrize(
    ("max_per", "message"),
    [
        ("{", "max_per: not json"),
        ("[1]", "max_per: an object like"),
        ('{"categry": 1}', "did you mean 'category'?"),
        ('{"category": 0}', "max_per: 'category' needs a whole number of at least 1, got 0"),
        ('{"category": "2"}', "needs a whole number of at least 1"),
    ],
)
def test_wrong_limits_are_refused(service: Service, max_per: str, message: str) -> None:
    response = service.get("/v1/items/m1/similar", params={"max_per": max_per})
    assert response.status_code == 422
    assert message in response.json()["error"]["message"].replace("JSON", "json")
