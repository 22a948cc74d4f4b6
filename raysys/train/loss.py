"""The sigmoid loss of SigLIP over the global batch, whatever the number of workers.

Every worker compares its own images with the captions of all. The sum of the workers' losses is the
loss of the concatenated batch, and so are the gradients: `gather_rows` sends each caption's gradient
back to the worker that made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor

EqualTitles = Literal["merged", "masked", "negative"]
NO_CAPTION = 0  # the key of a caption that is not there


def sigmoid_loss(
    images: Float[Tensor, "b d"],
    captions: Float[Tensor, "n d"],
    labels: Float[Tensor, "b n"],
    weights: Float[Tensor, "b n"],
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
) -> Float[Tensor, ""]:
    """Summed weighted pairwise losses over `num_images` (SigLIP, Zhai et al. 2023, eq. 1, has weights 1).

    Rows are L2-normalised. `labels` holds 1 for a pair that belongs together and -1 for one that does not.
    `num_images` is the size of the global batch, of which `images` may be a part.
    Raises: ValueError on an empty batch.
    """
    if images.shape[0] == 0 or num_images == 0:
        raise ValueError("an empty batch has no loss")
    logits = scale * images @ captions.T + bias
    return -(torch.nn.functional.logsigmoid(labels * logits) * weights).sum() / num_images


def pair_targets(
    image_keys: Int64[Tensor, " b"],
    caption_keys: Int64[Tensor, " n"],
    *,
    first_row: int,
    equal_titles: EqualTitles,
    image_groups: Int64[Tensor, " b"] | None = None,
    caption_groups: Int64[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Labels (1 or -1) and weights of each image against each caption of the global batch.

    Row i's own caption is column `first_row + i`. Listings repeat, so that another listing's equal caption
    is no real negative. `merged` counts equal captions as one that belongs to all their images: each of its
    m columns is positive with weight 1/m. `masked` leaves them out, `negative` is the published loss.
    Nor is the caption of a listing of the same group a real negative: but for `negative` it is left out.
    A missing caption (NO_CAPTION) has weight 0.
    """
    rows = torch.arange(len(image_keys), device=image_keys.device)
    own = torch.zeros(len(image_keys), len(caption_keys), dtype=torch.bool, device=image_keys.device)
    own[rows, first_row + rows] = True
    same = image_keys[:, None] == caption_keys[None, :]
    is_positive = same if equal_titles == "merged" else own
    weights = torch.ones(same.shape, device=same.device)
    if equal_titles == "merged":
        _, inverse, counts = caption_keys.unique(return_inverse=True, return_counts=True)
        weights = weights / counts[inverse]
    elif equal_titles == "masked":
        weights = weights.masked_fill(same & ~own, 0.0)
    if image_groups is not None and caption_groups is not None and equal_titles != "negative":
        is_related = image_groups[:, None] == caption_groups[None, :]
        weights = weights.masked_fill(is_related & ~is_positive, 0.0)
    is_there = (image_keys != NO_CAPTION)[:, None] & (caption_keys != NO_CAPTION)[None, :]
    return torch.where(is_positive, 1.0, -1.0), weights * is_there


def gather_rows(local: Tensor) -> Tensor:
    """The rows of all workers in order of rank; gradients flow back to the worker a row came from."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    if local.is_floating_point():
        with_gradient: Callable[[Tensor], Tensor] = _GatherRows.apply
        return with_gradient(local)
    return _all_gather(local)


def _all_gather(local: Tensor) -> Tensor:
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward sums over workers what each of them felt for a row."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.num_rows = local.shape[0]
        return _all_gather(local)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # An all-reduce and a cut: gloo has no reduce-scatter.
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]
