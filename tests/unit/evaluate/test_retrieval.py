"""Recall from photo to title, by hand and on a small model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysys.encoder.bundle import open_bundle
from raysys.encoder.siglip import load_model
from raysys.evaluate.retrieval import embed_pairs, recall_at, recalls
from tests.factories import photo, tiny_bundle

SCORES = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.3, 0.2], [0.3, 0.2, 0.1]])


def test_recall_by_hand() -> None:
    # Best first: row 0 has columns 0, 2, 1; row 1 has 0, 1, 2; row 2 has 0, 1, 2. Each wants its own number.
    keys = torch.tensor([11, 12, 13])
    assert [recall_at(k, SCORES, keys) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_equal_title_of_another_item_is_right_too() -> None:
    keys = torch.tensor([11, 12, 11])  # row 2 finds column 0, whose title is its own
    assert recall_at(1, SCORES, keys) == pytest.approx(2 / 3)


def test_more_neighbours_than_items_are_all_of_them() -> None:
    assert recall_at(10, SCORES, torch.tensor([11, 12, 13])) == 1.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small bundle."""
    titles = [f"{colour} {what}" for colour in ("red", "blue") for what in ("cup", "hat", "sock")]
    return tiny_bundle(tmp_path_factory.mktemp("tiny"), titles)


def found(bundle: str, titles: list[str]) -> dict[str, float]:
    return recalls(embed_pairs(load_model(bundle), bundle, [photo(size=(16, 16))] * len(titles), titles))


def test_equal_titles_are_all_right(bundle: str) -> None:
    assert found(bundle, ["red cup"] * 12) == {"r@1": 1.0, "r@5": 1.0, "r@10": 1.0}


def test_equal_photos_cannot_tell_titles_apart(bundle: str) -> None:
    # All photos are equal, so all find the same title first: one of four is right.
    assert found(bundle, ["red cup", "blue cup", "red hat", "blue hat"]) == {
        "r@1": 0.25,
        "r@5": 1.0,
        "r@10": 1.0,
    }


def test_vectors_are_those_that_the_bundle_gives(bundle: str) -> None:
    photos, titles = [photo("red"), photo("blue")], ["red cup", "blue hat"]
    pairs = embed_pairs(load_model(bundle), bundle, photos, titles)
    encoder = open_bundle(bundle)
    np.testing.assert_allclose(pairs.photos, encoder.embed_photos(photos), atol=1e-6)
    np.testing.assert_allclose(pairs.titles, encoder.embed_titles(titles), atol=1e-6)


def test_a_model_that_is_trained_is_left_so(bundle: str) -> None:
    model = load_model(bundle).train()
    embed_pairs(model, bundle, [photo()], ["red cup"])
    assert model.training
