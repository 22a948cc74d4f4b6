"""Recall from photo to title, by hand and on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raysys.encoder.preprocess import ImagePreprocessing, TextPreprocessing
from raysys.encoder.siglip import load_model
from raysys.evaluate.retrieval import recall_at, retrieval
from raysys.records import Item
from raysys.stream.shard import ShardRef
from tests.made import photo, tiny_checkpoint, write_shard

IMAGE, TEXT = ImagePreprocessing(size_px=16), TextPreprocessing(max_length=6)
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint."""
    place = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint(
        place, [f"{colour} {what}" for colour in ("red", "blue") for what in ("cup", "hat", "sock")]
    )
    return place


def shard_of(folder: Path, titles: list[str]) -> ShardRef:
    return write_shard(folder, [Item(f"i{n}", title, photo(size=(16, 16))) for n, title in enumerate(titles)])


def found(folder: Path, model: Any, shards: list[ShardRef], num_items: int) -> dict[str, float]:
    return retrieval(model, str(folder), shards, IMAGE, TEXT, num_items)


def test_retrieval_counts_equal_titles_and_leaves_the_model_as_it_was(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder).train()
    shard = shard_of(tmp_path, ["red cup"] * 12)
    assert found(folder, model, [shard], 12) == {"r@1": 1.0, "r@5": 1.0, "r@10": 1.0}
    assert model.training


def test_equal_photos_cannot_tell_titles_apart(folder: Path, tmp_path: Path) -> None:
    titles = ["red cup", "blue cup", "red hat", "blue hat"]
    shard = shard_of(tmp_path, titles)
    # All photos are equal, so all find the same title first: one of four is right.
    scores = found(folder, load_model(folder), [shard], 4)
    assert scores == {"r@1": 0.25, "r@5": 1.0, "r@10": 1.0}


def test_only_the_first_pairs_are_used(folder: Path, tmp_path: Path) -> None:
    shard = shard_of(tmp_path, ["red cup", "blue cup", "red hat", "blue hat"])
    assert found(folder, load_model(folder), [shard], 2)["r@1"] == 0.5


def test_without_pairs_there_are_no_figures(folder: Path) -> None:
    model = load_model(folder)
    assert found(folder, model, [], 10) == {}
