"""Padding changes the shapes of a batch and nothing else: no loss, no gradient, no count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raysys.columns import SKIPPED
from raysys.config.schema import FalseNegativesConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import load_model
from raysys.train.batches import BatchJoin, joined
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward
from tests.factories import tiny_checkpoint

TITLES = ["red dress", "blue cup", "green shoe"] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(Path(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), TITLES)))


def five_pairs() -> dict[str, Tensor]:
    """Pairs with a title and a colour; the last has no colour, and two are in one group."""
    generator = torch.Generator().manual_seed(5)
    return {
        "pixels": torch.randint(0, 256, (5, 16, 16, 3), generator=generator).to(torch.uint8),
        "tokens": torch.randint(0, 14, (5, 2, 6), generator=generator),
        "caption_keys": torch.tensor([[1, 11], [2, 12], [1, 11], [3, 13], [4, 0]]),
        "group_keys": torch.tensor([7, -42, -43, 7, -45]),
        "stream_position": torch.arange(41, 46),
        "skipped": torch.tensor([0, 0, 0, 0, 0]),
    }


def test_padding_is_black_without_captions_and_without_a_position() -> None:
    batch = joined([five_pairs()], 8, rank=0)
    assert all(len(rows) == 8 for rows in batch.values())
    assert all(torch.equal(batch[name][:5], rows) for name, rows in five_pairs().items())
    assert batch["stream_position"][5:].tolist() == [-1, -1, -1]
    assert not any(batch[name][5:].any() for name in ("pixels", "tokens", "caption_keys", SKIPPED))


def test_padding_rows_of_all_workers_have_different_groups() -> None:
    groups = torch.cat([joined([five_pairs()], 8, rank)["group_keys"][5:] for rank in range(3)])
    assert len(groups.unique()) == 9
    assert groups.max() < -(2**62)  # a sample without a group has a key slightly below zero


def test_full_batch_is_not_padded() -> None:
    full = five_pairs()
    assert all(joined([full], 5, rank=1)[name] is rows for name, rows in full.items())


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize(
    "policy",
    [
        FalseNegativesConfig(),
        FalseNegativesConfig(equal_titles="masked", same_group="positive"),
        FalseNegativesConfig(equal_titles="negative", same_group="negative"),
        FalseNegativesConfig(photo_cosine_threshold=0.01, similar_photos_are="positive"),
    ],
    ids=["default", "masked", "published", "similar"],
)
def test_padded_batch_has_the_loss_and_gradients_of_its_samples(
    model: Any, policy: FalseNegativesConfig, micro_batch_size: int | None
) -> None:
    section = TrainConfig(batch_size=5, false_negatives=policy, caption_weights={"colour": 0.5})
    expected_loss, expected = loss_and_grads(model, five_pairs(), section)
    section = section.model_copy(update={"micro_batch_size": micro_batch_size})
    loss, grads = loss_and_grads(model, joined([five_pairs()], 8, rank=0), section)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    norm = torch.stack([grad.norm() for grad in expected]).norm()
    for grad, expected_grad in zip(grads, expected, strict=True):
        assert float((grad - expected_grad).norm() / norm) < 1e-6


def loss_and_grads(model: Any, rows: dict[str, Tensor], section: TrainConfig) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    loss = backward(DualEncoder(model, ImagePreprocessing(size_px=16)), rows, section)["loss"]
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


def test_blocks_are_joined_in_order() -> None:
    blocks = [
        {name: rows[part] for name, rows in five_pairs().items()} for part in (slice(0, 2), slice(2, 5))
    ]
    batch = BatchJoin(torch.device("cpu"), rank=0, num_rows=5, size_px=16)(blocks)
    assert all(torch.equal(batch[name], rows) for name, rows in five_pairs().items())
