"""A shelf equals going down the complete ranking, with the rules applied item by item."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.errors import InputError
from raysys.index.build import publish_index
from raysys.index.search import Neighbour, Searcher
from raysys.index.shelf import ShelfOptions, shelf
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors

NUM = 300
VECTORS = unit_vectors(NUM, 8)
SELLERS = [None if row % 10 == 0 else "s0" if row % 2 else f"s{row % 7}" for row in range(NUM)]
GROUPS = [
    f"g{row // 60}" if row < 180 else "" for row in range(NUM)
]  # of 60 items: more than a search has spare


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("shelf")
    attributes = [json.dumps({"seller": seller, "price": row}) for row, seller in enumerate(SELLERS)]
    uri = publish_embeddings(folder / "set", VECTORS, attributes=attributes, groups=GROUPS)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, uri, IndexConfig(kind="exact"))
    return Searcher(spec.uri)


def from_complete_ranking(
    searcher: Searcher, row: int, k: int, where: Any, include_group: bool, max_per: dict[str, int]
) -> list[Neighbour]:
    (ranking,) = searcher.search(VECTORS[row : row + 1], NUM, where=where)
    own, shown, counts = searcher.item(row), list[Neighbour](), Counter[Any]()
    for neighbour in ranking:
        item = neighbour.item
        is_copy = bool(own.group) and item.group == own.group and not include_group
        values = [(name, item.attributes[name]) for name in max_per if item.attributes[name] is not None]
        if item.item_id == own.item_id or is_copy or any(counts[v] >= max_per[v[0]] for v in values):
            continue
        counts.update(values)
        shown.append(neighbour)
    return shown[:k]


@pytest.mark.parametrize("include_group", [False, True])
@pytest.mark.parametrize("max_per", [{}, {"seller": 1}, {"seller": 2}, {"seller": 3, "price": 1}])
@pytest.mark.parametrize("where", [None, {"price": {"lte": 150}}, {"seller": {"not": ["s2"]}}])
@pytest.mark.parametrize("k", [1, 5, 60, 400])
def test_shelf_is_what_the_rules_leave_of_the_ranking(
    searcher: Searcher, k: int, where: Any, max_per: dict[str, int], include_group: bool
) -> None:
    for row in (0, 7, 179, 299):
        shown = shelf(searcher, VECTORS[row], k, ShelfOptions(where, max_per, include_group), query_row=row)
        assert shown == from_complete_ranking(searcher, row, k, where, include_group, max_per)


def test_query_that_is_no_item_has_no_group(searcher: Searcher) -> None:
    shown = shelf(searcher, VECTORS[3], 2)
    assert [neighbour.item.item_id for neighbour in shown] == [
        neighbour.item.item_id for neighbour in searcher.search(VECTORS[3:4], 2)[0]
    ]
    assert shown[0].item.item_id == "m3"


@pytest.mark.parametrize(
    ("max_per", "message"),
    [
        ({"sellr": 2}, "max_per: no attribute 'sellr' (attributes: price, seller); did you mean 'seller'?"),
        ({"seller": 0}, "max_per: 'seller' needs a whole number of at least 1, got 0"),
        ({"seller": True}, "max_per: 'seller' needs a whole number of at least 1, got True"),
        ([2], 'max_per: an object like {"seller": 2} is required, got [2]'),
    ],
)
def test_wrong_limits_are_named(searcher: Searcher, max_per: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        shelf(searcher, np.asarray(VECTORS[0]), 3, ShelfOptions(max_per=max_per))
    assert str(raised.value) == message
