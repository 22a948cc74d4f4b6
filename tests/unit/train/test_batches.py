"""Padded rows change shapes and nothing else: no loss, no gradient, no count."""

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
from raysys.train.batches import padded
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward
from tests.factories import tiny_checkpoint

TITLES = ["red dress", "blue cup", "green shoe"] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(Path(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), TITLES)))


def batch() -> dict[str, Tensor]:
    """Five pairs of a title and a colour; the last has no colour, and two are of one group."""
    generator = torch.Generator().manual_seed(5)
    return {
        "pixels": torch.randint(0, 256, (5, 16, 16, 3), generator=generator).to(torch.uint8),
        "tokens": torch.randint(0, 14, (5, 2, 6), generator=generator),
        "caption_keys": torch.tensor([[1, 11], [2, 12], [1, 11], [3, 13], [4, 0]]),
        "group_keys": torch.tensor([7, -42, -43, 7, -45]),
        "stream_position": torch.arange(41, 46),
        "skipped": torch.tensor([0, 0, 0, 0, 0]),
    }


def test_padding_is_black_without_captions_and_at_no_position() -> None:
    found = padded(batch(), 8, rank=0)
    assert all(len(rows) == 8 for rows in found.values())
    assert all(torch.equal(found[name][:5], rows) for name, rows in batch().items())
    assert found["stream_position"][5:].tolist() == [-1, -1, -1]
    assert not any(found[name][5:].any() for name in ("pixels", "tokens", "caption_keys", SKIPPED))


def test_padded_rows_of_all_workers_are_each_of_a_group_of_their_own() -> None:
    groups = torch.cat([padded(batch(), 8, rank)["group_keys"][5:] for rank in range(3)])
    assert len(groups.unique()) == 9
    assert groups.max() < -(2**62)  # a sample without a group has its position below zero


def test_full_batch_stays_as_it_is() -> None:
    full = batch()
    assert all(padded(full, 5, rank=1)[name] is rows for name, rows in full.items())


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize(
    "how",
    [
        FalseNegativesConfig(),
        FalseNegativesConfig(equal_titles="masked", same_group="positive"),
        FalseNegativesConfig(equal_titles="negative", same_group="negative"),
        FalseNegativesConfig(similar_photos=0.01, similar_photos_are="positive"),
    ],
    ids=["default", "masked", "published", "similar"],
)
def test_padded_step_is_the_step_of_the_samples_alone(
    model: Any, how: FalseNegativesConfig, micro_batch_size: int | None
) -> None:
    section = TrainConfig(batch_size=5, false_negatives=how, caption_weights={"colour": 0.5})
    alone, felt_alone = step_of(model, batch(), section)
    section = section.model_copy(update={"micro_batch_size": micro_batch_size})
    whole, felt = step_of(model, padded(batch(), 8, rank=0), section)
    assert whole == pytest.approx(alone, rel=1e-6)
    norm = torch.stack([gradient.norm() for gradient in felt_alone]).norm()
    for one, other in zip(felt, felt_alone, strict=True):
        assert float((one - other).norm() / norm) < 1e-6


def step_of(model: Any, rows: dict[str, Tensor], section: TrainConfig) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    loss = backward(DualEncoder(model, ImagePreprocessing(size_px=16)), rows, section)
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]
