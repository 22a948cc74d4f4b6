"""The loss over the global batch: every worker's images against every worker's captions.

An all-gather brings all captions to every worker, and a reduce-scatter returns the sums of their gradients.
Not a ring of blocks: these are two collectives, and 32k captions of 768 floats are 100 MB.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss.pairs import Pairs
from raysys.train.loss.tiles import LossAndGradients, tiled_loss

_INTEGER_FIELDS = [
    field.name for field in dataclasses.fields(Pairs) if field.name not in ("images", "captions")
]


@torch.no_grad()
def loss_and_gradients(
    local: Pairs,
    policy: FalseNegativesConfig,
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
    tile_rows: int,
    compile_backend: str | None = None,
) -> LossAndGradients:
    """This worker's part of the global loss, with gradients.

    `loss` and the gradients of `scale` and `bias` are partial: their sums over all workers are those of the
    global loss. The gradients of `images` and `captions` are complete. A collective call; every worker passes
    equally many rows. `tile_rows` and `compile_backend`: see `tiled_loss`.
    Raises: ValueError on an empty batch.
    """
    result = tiled_loss(
        local,
        _gather(local, with_images=policy.photo_cosine_threshold is not None),
        policy,
        scale=scale,
        bias=bias,
        num_images=num_images,
        tile_rows=tile_rows,
        compile_backend=compile_backend,
    )
    if world_size() == 1:
        return result
    return dataclasses.replace(result, captions=_reduce_scatter(result.captions, len(local)))


def world_size() -> int:
    """Number of workers that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_rows(local: Shaped[Tensor, "b *rest"]) -> Shaped[Tensor, "n *rest"]:
    """The rows of all workers in order of rank, without gradients. A collective call."""
    if world_size() == 1:
        return local
    gathered = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(gathered, local.contiguous())
    return torch.cat(gathered)


def _reduce_scatter(grads: Float[Tensor, "n d"], num_rows: int) -> Float[Tensor, "b d"]:
    """This worker's `num_rows` rows of the sum over all workers."""
    if grads.is_cuda:
        local = torch.empty_like(grads[:num_rows])
        dist.reduce_scatter(local, list(grads.split(num_rows)))
        return local
    dist.all_reduce(grads)  # gloo's reduce-scatter takes three times as long
    first_row = dist.get_rank() * num_rows
    return grads[first_row : first_row + num_rows]


def _gather(local: Pairs, *, with_images: bool) -> Pairs:
    """The rows of all workers; images only where they are compared. Two tensors, as each is a message."""
    if world_size() == 1:
        return local
    vectors = torch.cat([local.captions, local.images], dim=1) if with_images else local.captions
    integers = torch.stack([getattr(local, name) for name in _INTEGER_FIELDS], dim=1)
    all_vectors, all_integers = gather_rows(vectors), gather_rows(integers)
    captions, images = all_vectors.chunk(2, dim=1) if with_images else (all_vectors, all_vectors[:, :0])
    return Pairs(images, captions, **dict(zip(_INTEGER_FIELDS, all_integers.unbind(dim=1), strict=True)))
