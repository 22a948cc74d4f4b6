"""GET /v1/attributes over an index of 46 items with alternating categories and prices 0 to 45."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raysys.index.attribute_summary import AttributeSummary
from raysys.index.search import Searcher
from tests.unit.serve.conftest import Service


def test_attributes_have_their_frequent_values_or_bounds(service: Service, index_uri: str) -> None:
    response = service.get("/v1/attributes")
    assert response.status_code == 200, response.text
    assert response.json() == {
        "index_version": Searcher(index_uri).version,
        "attributes": {
            "category": {
                "kind": "text",
                "values": [{"value": "bags", "count": 23}, {"value": "shoes", "count": 23}],
                "num_values": 2,
            },
            "price": {"kind": "number", "min": 0, "max": 45},
        },
    }


def test_attributes_are_computed_once_for_each_version(
    serve_with: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    summaries = Searcher.attribute_summaries

    def counted(searcher: Searcher) -> dict[str, AttributeSummary]:
        calls.append(searcher.version)
        return summaries(searcher)

    monkeypatch.setattr(Searcher, "attribute_summaries", counted)
    service = serve_with()
    first = service.get("/v1/attributes").json()
    assert service.get("/v1/attributes").json() == first
    assert calls == [first["index_version"]]
