"""The loss of images against captions: at once (`dense_loss`), or in tiles together with its gradients.

The loss is a sum over pairs, so that the gradient of a tile is known with the tile, and nothing of it has
to be kept for a backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss.pairs import Pairs, targets


@dataclass(frozen=True)
class Gradients:
    """A loss and what its arguments feel."""

    loss: Float[Tensor, ""]
    images: Float[Tensor, "b d"]
    captions: Float[Tensor, "b d"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""]


def dense_loss(
    left: Pairs,
    right: Pairs,
    how: FalseNegativesConfig,
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
) -> Float[Tensor, ""]:
    """Summed weighted losses of all pairs over `num_images`, the size of the global batch.

    SigLIP (Zhai et al. 2023, eq. 1) has all weights 1. Autograd differentiates it: this is the oracle.
    Raises: ValueError on an empty batch.
    """
    _require_rows(left, num_images)
    labels, weights = targets(left, right, how)
    logits = scale * left.images @ right.captions.T + bias
    return -(logsigmoid(labels * logits) * weights).sum() / num_images


class TiledLoss:
    """`dense_loss` of a worker's images against captions that come in blocks, with gradients, in tiles."""

    def __init__(
        self,
        own: Pairs,
        how: FalseNegativesConfig,
        *,
        scale: Float[Tensor, ""],
        bias: Float[Tensor, ""],
        num_images: int,
        tile_rows: int,
    ) -> None:
        _require_rows(own, num_images)
        self._own, self._how, self._scale, self._bias = own, how, scale, bias
        self._num_images, self._tile_rows = num_images, tile_rows
        self._images = torch.zeros_like(own.images)
        self._sums = own.images.new_zeros(3)  # of the loss, and of what scale and bias feel

    def add(self, block: Pairs) -> Float[Tensor, "n d"]:
        """Take in the captions of a block and return what they feel of it."""
        felt = torch.zeros_like(block.captions)
        for here, left in self._own.split(self._tile_rows):
            for there, right in block.split(self._tile_rows):
                labels, weights = targets(left, right, self._how)
                similarities = left.images @ right.captions.T
                loss, by_logit = _of_logits(self._scale * similarities + self._bias, labels, weights)
                self._images[here].addmm_(by_logit, right.captions)
                felt[there].addmm_(by_logit.T, left.images)
                self._sums += torch.stack([loss, _dot(by_logit, similarities), by_logit.sum()])
        return felt.mul_(self._scale / self._num_images)

    def gradients(self, captions: Float[Tensor, "b d"]) -> Gradients:
        """All that was added up; `captions` is what this worker's own captions felt everywhere."""
        loss, scale, bias = self._sums / self._num_images
        return Gradients(loss, self._images * (self._scale / self._num_images), captions, scale, bias)


@torch.enable_grad()
def _of_logits(
    logits: Float[Tensor, "b n"], labels: Float[Tensor, "b n"], weights: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "b n"]]:
    """Summed weighted losses, and what the logits feel: autograd reuses an exponential that is costly."""
    loss = -_dot(logsigmoid(logits.requires_grad_() * labels), weights)
    (felt,) = torch.autograd.grad(loss, logits)
    return loss.detach(), felt


def _dot(left: Float[Tensor, "b n"], right: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    return torch.dot(left.flatten(), right.flatten())


def _require_rows(own: Pairs, num_images: int) -> None:
    if not len(own) or not num_images:
        raise ValueError("an empty batch has no loss")
