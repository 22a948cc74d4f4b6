"""The sigmoid loss of images against captions: all pairs at once (`dense_loss`), or tile by tile.

The loss is a sum over pairs, and its gradient with respect to a logit has a closed form. The tiled version
therefore computes the gradients of each tile together with its loss and stores nothing for a backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss.pairs import Pairs, labels_and_weights

_TileGradients: TypeAlias = Callable[[Pairs, Pairs, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LossAndGradients:
    """A loss and its gradients with respect to the inputs."""

    loss: Float[Tensor, ""]
    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "n d"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""]


def dense_loss(
    left: Pairs,
    right: Pairs,
    policy: FalseNegativesConfig,
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
) -> Float[Tensor, ""]:
    """Sum of the weighted losses of all pairs, divided by `num_images`, the size of the global batch.

    SigLIP (Zhai et al. 2023, eq. 1) with all weights 1. Differentiable by autograd: the reference
    implementation for `tiled_loss`.
    Raises: ValueError on an empty batch.
    """
    _require_rows(left, num_images)
    labels, weights = labels_and_weights(left, right, policy)
    logits = scale * left.images @ right.captions.T + bias
    return -(logsigmoid(labels * logits) * weights).sum() / num_images


@torch.no_grad()
def tiled_loss(
    left: Pairs,
    right: Pairs,
    policy: FalseNegativesConfig,
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
    tile_rows: int,
    compile_backend: str | None = None,
) -> LossAndGradients:
    """`dense_loss` with the gradients of the images of `left` and the captions of `right`.

    One tile of `tile_rows` x `tile_rows` pairs is in memory at a time. `compile_backend` is torch.compile's,
    for the function of a tile; it compiles at most four times, as the last rows and columns may be fewer.
    Raises: ValueError on an empty batch.
    """
    _require_rows(left, num_images)
    tile_gradients = _tile_gradients(policy, compile_backend)
    image_grads, caption_grads = torch.zeros_like(left.images), torch.zeros_like(right.captions)
    sums = left.images.new_zeros(3)  # loss, gradient of scale, gradient of bias
    for left_rows, left_tile in left.split(tile_rows):
        for right_rows, right_tile in right.split(tile_rows):
            logit_grads, tile_sums = tile_gradients(left_tile, right_tile, scale, bias)
            image_grads[left_rows].addmm_(logit_grads, right_tile.captions)
            caption_grads[right_rows].addmm_(logit_grads.T, left_tile.images)
            sums += tile_sums
    loss, scale_grad, bias_grad = sums / num_images
    factor = scale / num_images
    return LossAndGradients(loss, image_grads.mul_(factor), caption_grads.mul_(factor), scale_grad, bias_grad)


@functools.lru_cache(maxsize=1)  # a run has one policy
def _tile_gradients(policy: FalseNegativesConfig, compile_backend: str | None) -> _TileGradients:
    """The function of a tile: the gradients of its logits, and its part of the three sums.

    Compiled, one kernel reads the similarities once; otherwise each operation is a kernel. On a CPU both are
    equally fast.
    """

    def tile_gradients(left: Pairs, right: Pairs, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        labels, weights = labels_and_weights(left, right, policy)
        similarities = left.images @ right.captions.T
        margins = (scale * similarities).add_(bias).mul_(labels)
        log_likelihoods = logsigmoid(margins)
        # -w log sigmoid(m) has the derivative w (sigmoid(m) - 1) with respect to m = label * logit.
        logit_grads = log_likelihoods.expm1().mul_(weights).mul_(labels)
        loss = -_dot(log_likelihoods, weights)
        return logit_grads, torch.stack([loss, _dot(logit_grads, similarities), logit_grads.sum()])

    if compile_backend is None:
        return tile_gradients
    compiled: _TileGradients = torch.compile(
        tile_gradients, fullgraph=True, dynamic=False, backend=compile_backend
    )
    return compiled


def _dot(left: Float[Tensor, "b n"], right: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    return torch.dot(left.flatten(), right.flatten())


def _require_rows(local: Pairs, num_images: int) -> None:
    if not len(local) or not num_images:
        raise ValueError("an empty batch has no loss")
