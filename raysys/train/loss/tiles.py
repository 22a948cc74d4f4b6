"""The sigmoid loss of images against captions: all pairs at once (`dense_loss`), or tile by tile.

The loss is a sum over pairs. The tiled version therefore computes the gradient of each tile together with
its loss and stores nothing of the tile for a backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss.pairs import Pairs, labels_and_weights


@dataclass(frozen=True)
class LossAndGradients:
    """A loss and its gradients with respect to the inputs."""

    loss: Float[Tensor, ""]
    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "b d"]
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
    implementation for `TiledLoss`.
    Raises: ValueError on an empty batch.
    """
    _require_rows(left, num_images)
    labels, weights = labels_and_weights(left, right, policy)
    logits = scale * left.images @ right.captions.T + bias
    return -(logsigmoid(labels * logits) * weights).sum() / num_images


class TiledLoss:
    """`dense_loss` of a worker's images against captions that arrive in blocks, with gradients, in tiles."""

    def __init__(
        self,
        local: Pairs,
        policy: FalseNegativesConfig,
        *,
        scale: Float[Tensor, ""],
        bias: Float[Tensor, ""],
        num_images: int,
        tile_rows: int,
    ) -> None:
        _require_rows(local, num_images)
        self._local, self._policy, self._scale, self._bias = local, policy, scale, bias
        self._num_images, self._tile_rows = num_images, tile_rows
        self._image_grads = torch.zeros_like(local.images)
        self._sums = local.images.new_zeros(3)  # loss, gradient of scale, gradient of bias

    def add(self, block: Pairs) -> Float[Tensor, "n d"]:
        """Add the pairs of the local images and a block of captions; return the gradients of the captions."""
        caption_grads = torch.zeros_like(block.captions)
        for left_rows, left in self._local.split(self._tile_rows):
            for right_rows, right in block.split(self._tile_rows):
                labels, weights = labels_and_weights(left, right, self._policy)
                similarities = left.images @ right.captions.T
                loss, logit_grads = _logit_grads(self._scale * similarities + self._bias, labels, weights)
                self._image_grads[left_rows].addmm_(logit_grads, right.captions)
                caption_grads[right_rows].addmm_(logit_grads.T, left.images)
                self._sums += torch.stack([loss, _dot(logit_grads, similarities), logit_grads.sum()])
        return caption_grads.mul_(self._scale / self._num_images)

    def result(self, caption_grads: Float[Tensor, "b d"]) -> LossAndGradients:
        """The loss and gradients of all blocks; `caption_grads` are those of the local captions."""
        loss, scale, bias = self._sums / self._num_images
        image_grads = self._image_grads * (self._scale / self._num_images)
        return LossAndGradients(loss, image_grads, caption_grads, scale, bias)


@torch.enable_grad()
def _logit_grads(
    logits: Float[Tensor, "b n"], labels: Float[Tensor, "b n"], weights: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "b n"]]:
    """Sum of the weighted losses, and its gradient. Autograd reuses the exponential, the costly part."""
    loss = -_dot(logsigmoid(logits.requires_grad_() * labels), weights)
    (grads,) = torch.autograd.grad(loss, logits)
    return loss.detach(), grads


def _dot(left: Float[Tensor, "b n"], right: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    return torch.dot(left.flatten(), right.flatten())


def _require_rows(local: Pairs, num_images: int) -> None:
    if not len(local) or not num_images:
        raise ValueError("an empty batch has no loss")
