"""The sigmoid loss by hand, beside transformers' own, and beside its slow twin on distinct captions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig, TinyConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import load_model, normalise
from raysys.encoder.text import TextPreprocessing, caption_keys
from raysys.encoder.tiny import build_tiny
from raysys.train.loss import Pairs, dense_loss, local_pairs, loss_and_gradients, targets
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.model.optim import freeze
from raysys.train.step import backward

EqualTitles: TypeAlias = Literal["merged", "masked", "negative"]
TEXT = TextPreprocessing(max_length=6)
PUBLISHED = FalseNegativesConfig(equal_titles="negative", same_group="negative")


def keys(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def unit_rows(count: int, seed: int, dimensions: int = 5) -> Tensor:
    rows = torch.randn(count, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def pairs_of(
    images: Tensor, captions: Tensor, numbers: Tensor, groups: Tensor | None = None, part: slice | None = None
) -> Pairs:
    """Some rows of a global batch, all of them without `part`; without `groups` nothing is related."""
    groups = -1 - torch.arange(len(numbers)) if groups is None else groups
    part = part or slice(0, len(numbers))
    return local_pairs(
        images[part],
        captions[part],
        numbers[part],
        groups[part],
        first_row=part.start,
        all_keys=numbers,
        all_groups=groups,
    )


def table_of(
    numbers: Tensor,
    how: FalseNegativesConfig,
    groups: Tensor | None = None,
    part: slice | None = None,
    looks: Tensor | None = None,
) -> tuple[list[list[float]], list[list[float]]]:
    """Labels and weights of some rows' images against all captions."""
    vectors = unit_rows(len(numbers), seed=1) if looks is None else looks
    left, right = (pairs_of(vectors, vectors, numbers, groups, rows) for rows in (part, None))
    labels, weights = targets(left, right, how)
    return labels.tolist(), weights.tolist()


def loss_of(
    images: Tensor,
    captions: Tensor,
    caption_numbers: Tensor,
    equal_titles: EqualTitles,
    scale: Tensor,
    bias: Tensor,
) -> Tensor:
    """The loss of a batch on one worker."""
    own = pairs_of(images, captions, caption_numbers)
    how = FalseNegativesConfig(equal_titles=equal_titles)
    return dense_loss(own, own, how, scale=scale, bias=bias, num_images=len(images))


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
    labels, weights = table_of(numbers, FalseNegativesConfig(equal_titles="negative"))
    assert labels == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    assert weights == [[1, 1, 1]] * 3
    labels, weights = table_of(numbers, FalseNegativesConfig(equal_titles="masked"))
    assert labels == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    assert weights == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    labels, weights = table_of(numbers, FalseNegativesConfig(equal_titles="merged"))
    assert labels == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    assert weights == [[0.5, 1, 0.5]] * 3


@pytest.mark.parametrize("how", ["merged", "masked", "negative"])
def test_second_worker_s_rows_are_the_lower_half_of_the_table(how: EqualTitles) -> None:
    numbers, section = keys(7, 8, 7, 9), FalseNegativesConfig(equal_titles=how)
    for of_all, of_half in zip(
        table_of(numbers, section), table_of(numbers, section, part=slice(2, 4)), strict=True
    ):
        assert of_all[2:] == of_half


@pytest.mark.parametrize("how", ["merged", "masked", "negative"])
def test_missing_caption_weighs_nothing(how: EqualTitles) -> None:
    _, weights = table_of(keys(7, 0, 8, 0), FalseNegativesConfig(equal_titles=how))
    assert weights == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


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


WAYS = [
    PUBLISHED,
    FalseNegativesConfig(equal_titles="merged", same_group="masked"),
    FalseNegativesConfig(equal_titles="masked", same_group="positive"),
    FalseNegativesConfig(equal_titles="merged", same_group="positive", photo_cosine_threshold=0.3),
    FalseNegativesConfig(photo_cosine_threshold=0.2, similar_photos_are="positive"),
]


@pytest.mark.parametrize("tile_rows", [1, 2, 3, 4, 7, 100])  # 3 and 4 leave an uneven last tile of 7
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_tiles_are_the_dense_loss_and_its_gradients(how: FalseNegativesConfig, tile_rows: int) -> None:
    numbers, groups = keys(1, 2, 1, 3, 0, 2, 4), keys(5, 6, 7, 5, 8, 6, 9)
    images, captions = (unit_rows(7, seed).requires_grad_() for seed in (1, 2))
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (4.0, -2.0))
    own = pairs_of(images, captions, numbers, groups)
    dense = dense_loss(own, own, how, scale=scale, bias=bias, num_images=7)
    felt = torch.autograd.grad(dense, (images, captions, scale, bias))
    found = loss_and_gradients(own, how, scale=scale, bias=bias, num_images=7, tile_rows=tile_rows)
    assert found.loss.item() == pytest.approx(dense.item(), abs=1e-12)
    for ours, theirs in zip((found.images, found.captions, found.scale, found.bias), felt, strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_ways_to_treat_false_negatives_are_different_losses() -> None:
    numbers, groups = keys(1, 2, 1, 3, 0, 2, 4), keys(5, 6, 7, 5, 8, 6, 9)
    own = pairs_of(unit_rows(7, 1), unit_rows(7, 2), numbers, groups)
    scale, bias = torch.tensor(4.0).double(), torch.tensor(-2.0).double()
    losses = [dense_loss(own, own, how, scale=scale, bias=bias, num_images=7).item() for how in WAYS]
    assert all(abs(one - other) > 1e-3 for one, other in itertools.combinations(losses, 2))


def test_float32_keeps_five_digits() -> None:
    numbers = torch.arange(1, 65)
    images, captions = unit_rows(64, 1, 32), unit_rows(64, 2, 32)
    found = []
    for kind in (torch.float64, torch.float32):
        own = pairs_of(images.to(kind), captions.to(kind), numbers)
        scale, bias = torch.tensor(10.0, dtype=kind), torch.tensor(-10.0, dtype=kind)
        found.append(loss_and_gradients(own, PUBLISHED, scale=scale, bias=bias, num_images=64, tile_rows=16))
    assert found[1].loss.item() == pytest.approx(found[0].loss.item(), rel=1e-5)
    torch.testing.assert_close(found[1].images.double(), found[0].images, rtol=1e-5, atol=1e-7)


def test_workers_shares_add_up_to_the_loss_of_the_batch() -> None:
    images, captions, numbers = unit_rows(6, seed=1), unit_rows(6, seed=2), keys(1, 2, 1, 3, 0, 2)
    scale, bias = torch.tensor(4.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    everyone, how = pairs_of(images, captions, numbers), FalseNegativesConfig()
    shares = [
        dense_loss(
            pairs_of(images, captions, numbers, part=slice(first, first + 2)),
            everyone,
            how,
            scale=scale,
            bias=bias,
            num_images=6,
        )
        for first in (0, 2, 4)
    ]
    whole = float(loss_of(images, captions, numbers, "merged", scale, bias))
    assert float(sum(shares)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(("num_rows", "num_images"), [(0, 4), (2, 0)])
def test_empty_batch_has_no_loss(num_rows: int, num_images: int) -> None:
    rows = torch.zeros(num_rows, 3)
    own = pairs_of(rows, rows, torch.ones(num_rows, dtype=torch.int64))
    one = torch.tensor(1.0)
    with pytest.raises(ValueError, match="an empty batch has no loss"):
        dense_loss(own, own, PUBLISHED, scale=one, bias=one, num_images=num_images)
    with pytest.raises(ValueError, match="an empty batch has no loss"):
        loss_and_gradients(own, PUBLISHED, scale=one, bias=one, num_images=num_images, tile_rows=2)


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
    section = TrainConfig(batch_size=5, false_negatives=PUBLISHED)
    ours = backward(DualEncoder(model, image), batch, section)
    ours_felt = gradients_of(model)
    pixels = normalise(batch["pixels"], image)
    theirs = model(input_ids=batch["tokens"][:, 0], pixel_values=pixels, return_loss=True).loss
    theirs_felt = torch.autograd.grad(theirs, list(model.parameters()))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for one, other in zip(ours_felt, theirs_felt, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def gradients_of(model: Any) -> list[Tensor]:
    """What every parameter felt; then it is forgotten."""
    felt = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return felt


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_are_the_step_of_the_whole_batch(model: Any, micro_batch_size: int) -> None:
    towers, batch = DualEncoder(model, ImagePreprocessing(size_px=16)), batch_of(8, kinds=2)
    section = TrainConfig(batch_size=8, caption_weights={"colour": 0.5})
    whole = backward(towers, batch, section)
    whole_felt = gradients_of(model)
    pieces = backward(towers, batch, section.model_copy(update={"micro_batch_size": micro_batch_size}))
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-6)
    norm = torch.stack([felt.norm() for felt in whole_felt]).norm()
    for one, other in zip(gradients_of(model), whole_felt, strict=True):
        assert float((one - other).norm() / norm) < 1e-6


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_frozen_tower_feels_nothing_and_the_other_the_same(model: Any, micro_batch_size: int | None) -> None:
    towers, batch = DualEncoder(model, ImagePreprocessing(size_px=16)), batch_of(4)
    section = TrainConfig(batch_size=4, micro_batch_size=micro_batch_size, frozen_text_layers="all")
    backward(towers, batch, section)
    whole_felt = dict(zip((name for name, _ in model.named_parameters()), gradients_of(model), strict=True))
    freeze(model, section)
    backward(towers, batch, section)
    for name, parameter in model.named_parameters():
        if name.startswith("text_model."):
            assert parameter.grad is None or not parameter.grad.any()
        else:
            torch.testing.assert_close(parameter.grad, whole_felt[name], rtol=1e-5, atol=1e-7)
    model.requires_grad_(True)
    model.zero_grad()


def test_each_kind_of_caption_adds_its_weighted_loss(model: Any) -> None:
    towers, batch = DualEncoder(model, ImagePreprocessing(size_px=16)), batch_of(4, kinds=2)
    parts = []
    for kind in (slice(0, 1), slice(1, 2)):
        of_kind = {name: batch[name][:, kind] for name in ("tokens", "caption_keys")}
        parts.append(backward(towers, {**batch, **of_kind}, TrainConfig(batch_size=4)).item())
    both = backward(towers, batch, TrainConfig(batch_size=4, caption_weights={"colour": 0.5}))
    model.zero_grad()
    assert both.item() == pytest.approx(parts[0] + 0.5 * parts[1], rel=1e-6)


def test_captions_encoded_together_are_those_encoded_alone(model: Any) -> None:
    towers, batch = DualEncoder(model, ImagePreprocessing(size_px=16)), batch_of(4, kinds=2)
    batch["tokens"][:, 1] = batch["tokens"][0, 1]  # a colour that all share
    _, together, _, _ = towers(batch["pixels"], batch["tokens"])
    for kind in (0, 1):
        _, alone, _, _ = towers(batch["pixels"], batch["tokens"][:, kind : kind + 1])
        torch.testing.assert_close(together[:, kind], alone[:, 0], rtol=0, atol=1e-6)


def test_equal_titles_of_the_stream_are_equal_keys_of_the_loss() -> None:
    numbers = torch.from_numpy(caption_keys(["Red dress", "cup", "red  dress", ""], TEXT))
    labels, weights = table_of(numbers, FalseNegativesConfig())
    assert labels[0][:3] == [1, -1, 1]
    assert weights == [[0.5, 1, 0.5, 0]] * 3 + [[0, 0, 0, 0]]


@pytest.mark.parametrize("equal_titles", ["merged", "masked", "negative"])
def test_caption_of_the_same_group_is_masked_positive_or_negative(equal_titles: EqualTitles) -> None:
    numbers, groups = keys(11, 12, 13), keys(5, -1, 5)  # the first and the last show the same thing

    def table(same_group: Literal["masked", "positive", "negative"]) -> tuple[Any, Any]:
        how = FalseNegativesConfig(equal_titles=equal_titles, same_group=same_group)
        return table_of(numbers, how, groups)

    apart = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    assert table("masked") == (apart, [[1, 1, 0], [1, 1, 1], [0, 1, 1]])
    assert table("negative") == (apart, [[1, 1, 1]] * 3)
    assert table("positive") == (
        [[1, -1, 1], [-1, 1, -1], [1, -1, 1]],
        [[1, 1, 0.5], [1, 1, 1], [0.5, 1, 1]],
    )


def test_same_title_in_a_group_stays_a_positive() -> None:
    labels, weights = table_of(keys(11, 11), FalseNegativesConfig(), keys(5, 5))
    assert labels == [[1, 1], [1, 1]]
    assert weights == [[0.5, 0.5], [0.5, 0.5]]


def test_photo_that_looks_alike_is_masked_or_positive() -> None:
    looks = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)  # cosines 0.8, 0, 0.6
    masked = FalseNegativesConfig(photo_cosine_threshold=0.7)
    apart = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    assert table_of(keys(1, 2, 3), masked, looks=looks) == (apart, [[1, 0, 1], [0, 1, 1], [1, 1, 1]])
    positive = FalseNegativesConfig(photo_cosine_threshold=0.7, similar_photos_are="positive")
    assert table_of(keys(1, 2, 3), positive, looks=looks) == (
        [[1, 1, -1], [1, 1, -1], [-1, -1, 1]],
        [[1, 1, 1]] * 3,
    )
