"""Recall from photo to title, by hand and with a small model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raysys.encoder.bundle import open_bundle
from raysys.encoder.siglip import load_model
from raysys.evaluate.retrieval import embed_pairs, recall_at, recalls
from tests.factories import photo, tiny_bundle

SCORES = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.3, 0.2], [0.3, 0.2, 0.1]])


def test_recall_at_k_of_three_rows() -> None:
    # Best first: row 0 has columns 0, 2, 1; row 1 has 0, 1, 2; row 2 has 0, 1, 2. Row i is correct with column i.
    keys = torch.tensor([11, 12, 13])
    assert [recall_at(k, SCORES, keys) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_equal_title_of_another_item_is_correct() -> None:
    keys = torch.tensor([11, 12, 11])  # the best column of row 2 is 0, which has the same title
    assert recall_at(1, SCORES, keys) == pytest.approx(2 / 3)


def test_k_above_the_number_of_items_uses_all_items() -> None:
    assert recall_at(10, SCORES, torch.tensor([11, 12, 13])) == 1.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    titles = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("cup", "hat", "sock")]
    return tiny_bundle(tmp_path_factory.mktemp("tiny"), titles)


def recalls_of(bundle: str, titles: list[str]) -> dict[str, float]:
    return recalls(embed_pairs(load_model(bundle), bundle, [photo(size=(16, 16))] * len(titles), titles))


def test_equal_titles_are_all_correct(bundle: str) -> None:
    assert recalls_of(bundle, ["red cup"] * 12) == {"r@1": 1.0, "r@5": 1.0, "r@10": 1.0}


def test_equal_photos_rank_titles_in_the_same_order(bundle: str) -> None:
    # All photos have the same best title: one of four is correct.
    assert recalls_of(bundle, ["red cup", "blue cup", "red hat", "blue hat"]) == {
        "r@1": 0.25,
        "r@5": 1.0,
        "r@10": 1.0,
    }


def test_vectors_equal_those_of_the_encoder_bundle(bundle: str) -> None:
    photos, titles = [photo("red"), photo("blue")], ["red cup", "blue hat"]
    pairs = embed_pairs(load_model(bundle), bundle, photos, titles)
    encoder = open_bundle(bundle)
    np.testing.assert_allclose(pairs.photos, encoder.embed_photos(photos), atol=1e-6)
    np.testing.assert_allclose(pairs.titles, encoder.embed_titles(titles), atol=1e-6)


def test_embedding_keeps_the_training_mode_of_the_model(bundle: str) -> None:
    model = load_model(bundle).train()
    embed_pairs(model, bundle, [photo()], ["red cup"])
    assert model.training
