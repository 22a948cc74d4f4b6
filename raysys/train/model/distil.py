"""Holding a model near its start: how far its vectors went, and the gradient of that."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from raysys.train.loss.pairs import NO_CAPTION
from raysys.train.model.dual_encoder import Embedded


class Drift(NamedTuple):
    """A share of the mean squared distance, and what the vectors feel of it."""

    distance: Float[Tensor, ""]
    images: Float[Tensor, "b d"]
    titles: Float[Tensor, "b d"]


@torch.no_grad()
def drift(now: Embedded, start: Embedded, keys: Int64[Tensor, " b"], *, num_images: int) -> Drift:
    """Squared distances of images and of titles to the start's, summed over these rows, over `num_images`.

    `num_images` is the size of the global batch. A row without a title, a skipped sample, counts nothing.
    """
    weights = (keys != NO_CAPTION).to(now.images)[:, None] / num_images
    images, titles = now.images - start.images, now.captions[:, 0] - start.captions[:, 0]
    distance = (weights * (images.square() + titles.square())).sum()
    return Drift(distance, 2.0 * weights * images, 2.0 * weights * titles)
