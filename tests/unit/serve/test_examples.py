"""The queries that the page starts from: the opening item of an index, and the texts of the configuration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raysys.index.search import Searcher
from raysys.serve.opening_item import clearest, opening_row
from tests.unit.serve.conftest import Service


def padded(*scores: float) -> list[float]:
    return [*scores, *[-1.0] * (24 - len(scores))]


def test_clearest_item_has_the_nearest_neighbours() -> None:
    scores = np.array([[0.5] * 24, [0.9] * 24, [0.7] * 24])
    assert clearest(scores, np.eye(3, dtype=np.float32)) == 1


def test_neighbours_that_every_item_is_near_do_not_make_an_item_clear() -> None:
    # Items 0 and 1 are almost equal, so their mean cosine with all items is above that of item 2: 0.66 and 0.33.
    vectors = np.array([[1, 0], [0.9999, 0.0141], [0, 1]], np.float32)
    scores = np.array([[0.8] * 24, [0.8] * 24, [0.7] * 24])
    assert clearest(scores, vectors) == 2


def test_copies_of_an_item_do_not_make_it_clear() -> None:
    scores = np.array([padded(*[1.0] * 12), padded(*[0.6] * 12), padded(*[1.0] * 11, *[0.5] * 12)])
    # Without copies: no neighbour, twelve at 0.6, twelve at 0.5.
    assert clearest(scores, np.eye(3, dtype=np.float32)) == 1


def test_only_the_twelve_nearest_count() -> None:
    scores = np.array([padded(*[0.8] * 12, *[0.0] * 12), [0.7] * 24])
    assert clearest(scores, np.eye(2, dtype=np.float32)) == 0


def test_opening_item_is_the_same_for_the_same_index(index_uri: str) -> None:
    first, second = opening_row(Searcher(index_uri)), opening_row(Searcher(index_uri))
    assert first == second
    assert first is not None


def test_examples_are_the_texts_of_the_configuration_and_the_opening_item(
    serve_with: Callable[..., Service], index_uri: str
) -> None:
    service = serve_with(example_queries=["red dress", "赤 ワンピース"])
    row = opening_row(Searcher(index_uri))
    assert row is not None
    response = service.get("/v1/examples")
    assert response.status_code == 200, response.text
    assert response.json()["texts"] == ["red dress", "赤 ワンピース"]
    assert response.json()["item"]["item_id"] == Searcher(index_uri).item(row).item_id
    assert service.get("/v1/examples").json() == response.json()
    assert serve_with().get("/v1/examples").json()["texts"] == []
