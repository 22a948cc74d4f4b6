"""The sigmoid loss by hand, and the tiled loss and its gradients against the dense loss and autograd."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss import dense_loss, loss_and_gradients
from tests.unit.train.loss.rows import PUBLISHED, EqualTitles, keys, pairs_of, unit_rows

POLICIES = [
    PUBLISHED,
    FalseNegativesConfig(equal_titles="merged", same_group="masked"),
    FalseNegativesConfig(equal_titles="masked", same_group="positive"),
    FalseNegativesConfig(equal_titles="merged", same_group="positive", photo_cosine_threshold=0.3),
    FalseNegativesConfig(photo_cosine_threshold=0.2, similar_photos_are="positive"),
]


def float64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def loss_of(
    images: Tensor, captions: Tensor, row_keys: Tensor, equal_titles: EqualTitles, scale: Tensor, bias: Tensor
) -> Tensor:
    """The dense loss of a batch on one worker."""
    pairs = pairs_of(images, captions, row_keys)
    policy = FalseNegativesConfig(equal_titles=equal_titles)
    return dense_loss(pairs, pairs, policy, scale=scale, bias=bias, num_images=len(images))


def test_loss_of_two_pairs_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    captions = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    # Logits 10 * image.caption - 5: [[5, 1], [-5, 3]]; labels [[1, -1], [-1, 1]].
    # -log sigmoid(z) = log(1 + exp(-z)) at z = 5, -1, 5, 3.
    by_hand = sum(math.log1p(math.exp(-z)) for z in (5, -1, 5, 3)) / 2
    assert by_hand == pytest.approx(0.687640, abs=1e-6)
    loss = loss_of(images, captions, keys(1, 2), "negative", float64(10.0), float64(-5.0))
    assert float(loss) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize(
    ("row_keys", "tolerance"),
    [
        (keys(3, 5, 3, 9, 5, 3, 1, 3), 1e-10),  # 4, 2, 1 and 1 times: weights of 1/4 and 1/2 are exact
        (keys(3, 5, 3, 9, 5, 3, 1), 1e-7),  # 3 times: a third is rounded to float32
    ],
)
def test_merged_titles_equal_the_loss_on_distinct_captions(row_keys: Tensor, tolerance: float) -> None:
    distinct_keys, inverse = row_keys.unique(return_inverse=True)
    scale, bias = (float64(value).requires_grad_() for value in (4.0, -2.0))
    images = unit_rows(len(row_keys), seed=1).requires_grad_()
    distinct = unit_rows(4, seed=2).requires_grad_()
    inputs = (images, distinct, scale, bias)

    merged = loss_of(images, distinct[inverse], row_keys, "merged", scale, bias)
    # The reference has one column for each distinct caption, a positive of every image with that caption.
    signs = torch.where(row_keys[:, None] == distinct_keys[None, :], 1.0, -1.0)
    logits = scale * images @ distinct.T + bias
    reference = torch.log1p(torch.exp(-signs * logits)).sum() / len(row_keys)

    assert abs((merged - reference).item()) < tolerance
    grads, expected = (torch.autograd.grad(loss, inputs) for loss in (merged, reference))
    for grad, expected_grad in zip(grads, expected, strict=True):
        assert float((grad - expected_grad).abs().max()) < tolerance


def test_masked_titles_leave_out_the_pairs_of_equal_captions() -> None:
    row_keys, images = keys(3, 5, 3), unit_rows(3, seed=1)
    captions = unit_rows(2, seed=2)[[0, 1, 0]]
    scale, bias = float64(4.0), float64(-2.0)
    logits = scale * images @ captions.T + bias
    pairs = [(0, 0, 1), (0, 1, -1), (1, 0, -1), (1, 1, 1), (1, 2, -1), (2, 1, -1), (2, 2, 1)]
    by_hand = sum(math.log1p(math.exp(-sign * float(logits[i, j]))) for i, j, sign in pairs) / 3
    loss = loss_of(images, captions, row_keys, "masked", scale, bias)
    assert float(loss) == pytest.approx(by_hand, abs=1e-12)


def test_without_equal_captions_the_three_treatments_agree() -> None:
    images, captions, row_keys = unit_rows(4, seed=1), unit_rows(4, seed=2), keys(1, 2, 3, 4)
    treatments: tuple[EqualTitles, ...] = ("merged", "masked", "negative")
    losses = {
        float(loss_of(images, captions, row_keys, treatment, float64(4.0), float64(-2.0)))
        for treatment in treatments
    }
    assert len(losses) == 1


@pytest.mark.parametrize("tile_rows", [1, 2, 3, 4, 7, 100])  # 3 and 4 leave a smaller last tile of 7
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_tiled_loss_and_gradients_equal_the_dense_ones(policy: FalseNegativesConfig, tile_rows: int) -> None:
    row_keys, groups = keys(1, 2, 1, 3, 0, 2, 4), keys(5, 6, 7, 5, 8, 6, 9)
    images, captions = (unit_rows(7, seed).requires_grad_() for seed in (1, 2))
    scale, bias = (float64(value).requires_grad_() for value in (4.0, -2.0))
    pairs = pairs_of(images, captions, row_keys, groups)
    dense = dense_loss(pairs, pairs, policy, scale=scale, bias=bias, num_images=7)
    expected = torch.autograd.grad(dense, (images, captions, scale, bias))
    result = loss_and_gradients(pairs, policy, scale=scale, bias=bias, num_images=7, tile_rows=tile_rows)
    assert result.loss.item() == pytest.approx(dense.item(), abs=1e-12)
    grads = (result.images, result.captions, result.scale, result.bias)
    for grad, expected_grad in zip(grads, expected, strict=True):
        assert expected_grad.abs().max() > 1e-3
        torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)


def test_policies_give_different_losses() -> None:
    row_keys, groups = keys(1, 2, 1, 3, 0, 2, 4), keys(5, 6, 7, 5, 8, 6, 9)
    pairs = pairs_of(unit_rows(7, 1), unit_rows(7, 2), row_keys, groups)
    scale, bias = float64(4.0), float64(-2.0)
    losses = [
        dense_loss(pairs, pairs, policy, scale=scale, bias=bias, num_images=7).item() for policy in POLICIES
    ]
    assert all(abs(one - other) > 1e-3 for one, other in itertools.combinations(losses, 2))


def test_float32_has_five_correct_digits() -> None:
    row_keys = torch.arange(1, 65)
    images, captions = unit_rows(64, 1, 32), unit_rows(64, 2, 32)
    results = []
    for dtype in (torch.float64, torch.float32):
        pairs = pairs_of(images.to(dtype), captions.to(dtype), row_keys)
        scale, bias = torch.tensor(10.0, dtype=dtype), torch.tensor(-10.0, dtype=dtype)
        results.append(
            loss_and_gradients(pairs, PUBLISHED, scale=scale, bias=bias, num_images=64, tile_rows=16)
        )
    assert results[1].loss.item() == pytest.approx(results[0].loss.item(), rel=1e-5)
    torch.testing.assert_close(results[1].images.double(), results[0].images, rtol=1e-5, atol=1e-7)


def test_losses_of_all_workers_sum_to_the_loss_of_the_batch() -> None:
    images, captions, row_keys = unit_rows(6, seed=1), unit_rows(6, seed=2), keys(1, 2, 1, 3, 0, 2)
    scale, bias = float64(4.0), float64(-2.0)
    all_pairs, policy = pairs_of(images, captions, row_keys), FalseNegativesConfig()
    losses = [
        dense_loss(
            pairs_of(images, captions, row_keys, part=slice(first, first + 2)),
            all_pairs,
            policy,
            scale=scale,
            bias=bias,
            num_images=6,
        )
        for first in (0, 2, 4)
    ]
    expected = float(loss_of(images, captions, row_keys, "merged", scale, bias))
    assert float(sum(losses)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("num_rows", "num_images"), [(0, 4), (2, 0)])
def test_empty_batch_is_refused(num_rows: int, num_images: int) -> None:
    rows = torch.zeros(num_rows, 3)
    pairs = pairs_of(rows, rows, torch.ones(num_rows, dtype=torch.int64))
    one = torch.tensor(1.0)
    with pytest.raises(ValueError, match="an empty batch has no loss"):
        dense_loss(pairs, pairs, PUBLISHED, scale=one, bias=one, num_images=num_images)
    with pytest.raises(ValueError, match="an empty batch has no loss"):
        loss_and_gradients(pairs, PUBLISHED, scale=one, bias=one, num_images=num_images, tile_rows=2)
