"""The sigmoid loss by hand, beside transformers' own, and beside its slow twin on distinct captions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raysys.config.schema import TinyConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing, TextPreprocessing
from raysys.encoder.siglip import load_model, normalise
from raysys.encoder.tiny import build_tiny
from raysys.stream.decode import caption_keys
from raysys.train.loss import EqualTitles, pair_targets, sigmoid_loss
from raysys.train.step import TwoTowers, batch_loss

TEXT = TextPreprocessing(max_length=6)


def keys(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def unit_rows(count: int, seed: int, dimensions: int = 5) -> Tensor:
    rows = torch.randn(count, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def loss_of(
    images: Tensor,
    captions: Tensor,
    caption_numbers: Tensor,
    equal_titles: EqualTitles,
    scale: Tensor,
    bias: Tensor,
) -> Tensor:
    """The loss of a batch on one worker."""
    labels, weights = pair_targets(caption_numbers, caption_numbers, first_row=0, equal_titles=equal_titles)
    return sigmoid_loss(
        images,
        captions,
        labels.to(images),
        weights.to(images),
        scale=scale,
        bias=bias,
        num_images=len(images),
    )


def test_loss_of_two_pairs_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    captions = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    scale, bias = torch.tensor(10.0, dtype=torch.float64), torch.tensor(-5.0, dtype=torch.float64)
    # Logits 10 * image.caption - 5: [[5, 1], [-5, 3]]; labels [[1, -1], [-1, 1]].
    # -log sigmoid(z) = log(1 + exp(-z)) at z = 5, -1, 5, 3.
    by_hand = sum(math.log1p(math.exp(-z)) for z in (5, -1, 5, 3)) / 2
    assert by_hand == pytest.approx(0.687640, abs=1e-6)
    assert float(loss_of(images, captions, keys(1, 2), "negative", scale, bias)) == pytest.approx(
        by_hand, abs=1e-12
    )


def test_labels_and_weights_of_three_captions_by_hand() -> None:
    numbers = keys(7, 8, 7)
    labels, weights = pair_targets(numbers, numbers, first_row=0, equal_titles="negative")
    assert labels.tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    assert weights.tolist() == [[1, 1, 1]] * 3
    labels, weights = pair_targets(numbers, numbers, first_row=0, equal_titles="masked")
    assert labels.tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    assert weights.tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    labels, weights = pair_targets(numbers, numbers, first_row=0, equal_titles="merged")
    assert labels.tolist() == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    assert weights.tolist() == [[0.5, 1, 0.5]] * 3


def test_second_worker_s_rows_are_the_lower_half_of_the_table() -> None:
    numbers = keys(7, 8, 7, 9)
    for how in ("merged", "masked", "negative"):
        whole = pair_targets(numbers, numbers, first_row=0, equal_titles=how)
        lower = pair_targets(numbers[2:], numbers, first_row=2, equal_titles=how)
        for of_all, of_half in zip(whole, lower, strict=True):
            assert torch.equal(of_all[2:], of_half)


@pytest.mark.parametrize("how", ["merged", "masked", "negative"])
def test_missing_caption_weighs_nothing(how: EqualTitles) -> None:
    numbers = keys(7, 0, 8, 0)
    _, weights = pair_targets(numbers, numbers, first_row=0, equal_titles=how)
    assert weights.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("numbers", "tolerance"),
    [
        (keys(3, 5, 3, 9, 5, 3, 1, 3), 1e-10),  # 4, 2, 1 and 1 times: weights of 1/4 and 1/2 are exact
        (keys(3, 5, 3, 9, 5, 3, 1), 1e-7),  # 3 times: a third is rounded to float32
    ],
)
def test_merged_is_the_loss_on_distinct_captions(numbers: Tensor, tolerance: float) -> None:
    distinct_numbers, column = numbers.unique(return_inverse=True)
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    images = unit_rows(len(numbers), seed=1).requires_grad_()
    distinct = unit_rows(4, seed=2).requires_grad_()
    inputs = (images, distinct, scale, bias)

    merged = loss_of(images, distinct[column], numbers, "merged", scale, bias)
    # The twin: a column for every distinct caption, which belongs to each image that has it.
    signs = torch.where(numbers[:, None] == distinct_numbers[None, :], 1.0, -1.0)
    logits = scale * images @ distinct.T + bias
    twin = torch.log1p(torch.exp(-signs * logits)).sum() / len(numbers)

    assert abs((merged - twin).item()) < tolerance
    for ours, theirs in zip(
        torch.autograd.grad(merged, inputs), torch.autograd.grad(twin, inputs), strict=True
    ):
        assert float((ours - theirs).abs().max()) < tolerance


def test_masked_leaves_out_the_columns_of_equal_captions() -> None:
    numbers, images = keys(3, 5, 3), unit_rows(3, seed=1)
    captions = unit_rows(2, seed=2)[[0, 1, 0]]
    scale, bias = torch.tensor(4.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    logits = scale * images @ captions.T + bias
    kept = [(0, 0, 1), (0, 1, -1), (1, 0, -1), (1, 1, 1), (1, 2, -1), (2, 1, -1), (2, 2, 1)]
    by_hand = sum(math.log1p(math.exp(-sign * float(logits[i, j]))) for i, j, sign in kept) / 3
    assert float(loss_of(images, captions, numbers, "masked", scale, bias)) == pytest.approx(
        by_hand, abs=1e-12
    )


def test_without_equal_captions_the_three_ways_agree() -> None:
    images, captions, numbers = unit_rows(4, seed=1), unit_rows(4, seed=2), keys(1, 2, 3, 4)
    scale, bias = torch.tensor(4.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    ways: tuple[EqualTitles, ...] = ("merged", "masked", "negative")
    losses = {float(loss_of(images, captions, numbers, how, scale, bias)) for how in ways}
    assert len(losses) == 1


def test_workers_shares_add_up_to_the_loss_of_the_batch() -> None:
    images, captions, numbers = unit_rows(6, seed=1), unit_rows(6, seed=2), keys(1, 2, 1, 3, 0, 2)
    scale, bias = torch.tensor(4.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    shares = []
    for first_row in (0, 2, 4):
        rows = slice(first_row, first_row + 2)
        labels, weights = pair_targets(numbers[rows], numbers, first_row=first_row, equal_titles="merged")
        targets = (labels.double(), weights.double())
        shares.append(sigmoid_loss(images[rows], captions, *targets, scale=scale, bias=bias, num_images=6))
    assert float(sum(shares)) == pytest.approx(float(loss_of(images, captions, numbers, "merged", scale, bias)), abs=1e-12)  # fmt: skip


@pytest.mark.parametrize(("num_rows", "num_images"), [(0, 4), (2, 0)])
def test_empty_batch_has_no_loss(num_rows: int, num_images: int) -> None:
    rows, table = torch.zeros(num_rows, 3), torch.zeros(num_rows, num_rows)
    with pytest.raises(ValueError, match="an empty batch has no loss"):
        sigmoid_loss(rows, rows, table, table, scale=torch.tensor(1.0), bias=torch.tensor(0.0), num_images=num_images)  # fmt: skip


def tiny_model(folder: Path) -> Any:
    size = TinyConfig(
        image_size_px=16,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        text_num_layers=1,
        vocab_size=60,
        max_length=6,
    )
    titles = [f"{colour} {what}" for colour in ("red", "green", "blue") for what in ("dress", "cup", "shoe")]
    build_tiny(folder, titles * 3, size, seed=7)
    return load_model(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small SigLIP."""
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def batch_of(num_pairs: int, kinds: int = 1) -> dict[str, Tensor]:
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 14, (num_pairs, kinds, 6))
    return {
        "pixels": torch.from_numpy(rng.integers(0, 256, (num_pairs, 16, 16, 3), dtype=np.uint8)),
        "tokens": torch.from_numpy(tokens),
        "caption_keys": torch.from_numpy(np.arange(1, num_pairs * kinds + 1).reshape(num_pairs, kinds)),
        "group_keys": torch.arange(-num_pairs, 0),
    }


def test_published_loss_is_that_of_transformers(model: Any) -> None:
    image, batch = ImagePreprocessing(size_px=16), batch_of(5)
    section = TrainConfig(batch_size=5, equal_titles="negative")
    ours = batch_loss(TwoTowers(model, image), batch, section, rank=0)
    ours_felt = torch.autograd.grad(ours, list(model.parameters()))
    pixels = normalise(batch["pixels"], image)
    theirs = model(input_ids=batch["tokens"][:, 0], pixel_values=pixels, return_loss=True).loss
    theirs_felt = torch.autograd.grad(theirs, list(model.parameters()))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for one, other in zip(ours_felt, theirs_felt, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_each_kind_of_caption_adds_its_weighted_loss(model: Any) -> None:
    towers, batch = TwoTowers(model, ImagePreprocessing(size_px=16)), batch_of(4, kinds=2)
    one_kind = TrainConfig(batch_size=4)
    parts = []
    for kind in (slice(0, 1), slice(1, 2)):
        of_kind = {name: batch[name][:, kind] for name in ("tokens", "caption_keys")}
        parts.append(batch_loss(towers, {**batch, **of_kind}, one_kind, rank=0).item())
    both = batch_loss(towers, batch, TrainConfig(batch_size=4, caption_weights={"colour": 0.5}), rank=0)
    assert both.item() == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-6)


def test_captions_encoded_together_are_those_encoded_alone(model: Any) -> None:
    towers, batch = TwoTowers(model, ImagePreprocessing(size_px=16)), batch_of(4, kinds=2)
    batch["tokens"][:, 1] = batch["tokens"][0, 1]  # a colour that all share
    _, together, _, _ = towers(batch["pixels"], batch["tokens"])
    for kind in (0, 1):
        _, alone, _, _ = towers(batch["pixels"], batch["tokens"][:, kind : kind + 1])
        torch.testing.assert_close(together[:, kind], alone[:, 0], rtol=0, atol=1e-6)


def test_equal_titles_of_the_stream_are_equal_keys_of_the_loss() -> None:
    numbers = torch.from_numpy(caption_keys(["Red dress", "cup", "red  dress", ""], TEXT))
    labels, weights = pair_targets(numbers, numbers, first_row=0, equal_titles="merged")
    assert labels[0].tolist()[:3] == [1, -1, 1]
    assert weights.tolist() == [[0.5, 1, 0.5, 0]] * 3 + [[0, 0, 0, 0]]


def test_caption_of_the_same_group_is_no_negative() -> None:
    numbers, groups = keys(11, 12, 13), keys(5, -1, 5)  # the first and the last show the same thing
    for how in ("merged", "masked"):
        labels, weights = pair_targets(
            numbers, numbers, first_row=0, equal_titles=how, image_groups=groups, caption_groups=groups
        )
        assert labels.tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
        assert weights.tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    _, published = pair_targets(
        numbers, numbers, first_row=0, equal_titles="negative", image_groups=groups, caption_groups=groups
    )
    assert published.tolist() == [[1, 1, 1]] * 3


def test_same_title_in_a_group_stays_a_positive() -> None:
    numbers, groups = keys(11, 11), keys(5, 5)
    labels, weights = pair_targets(
        numbers, numbers, first_row=0, equal_titles="merged", image_groups=groups, caption_groups=groups
    )
    assert labels.tolist() == [[1, 1], [1, 1]]
    assert weights.tolist() == [[0.5, 0.5], [0.5, 0.5]]
