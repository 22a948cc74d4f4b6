"""The loss over the global batch: every worker's images against every worker's captions.

`ring`: blocks of captions travel from worker to worker, and their gradients travel with them; the next block
is transferred while the current one is compared. Memory is two blocks for any number of workers.
`gather`: all workers receive all captions at once: fewer messages, but memory grows with the number of
workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Literal, TypeAlias

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss.pairs import Pairs
from raysys.train.loss.tiles import LossAndGradients, TiledLoss

Exchange = Literal["ring", "gather"]
_INTEGER_FIELDS = [field.name for field in fields(Pairs) if field.name not in ("images", "captions")]
_AddBlock: TypeAlias = Callable[[Pairs], Tensor]  # a block of captions -> their gradients


@torch.no_grad()
def loss_and_gradients(
    local: Pairs,
    policy: FalseNegativesConfig,
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
    tile_rows: int,
    exchange: Exchange = "ring",
) -> LossAndGradients:
    """This worker's part of the global loss, with gradients.

    `loss` and the gradients of `scale` and `bias` are partial: their sums over all workers are those of the
    global loss. The gradients of `images` and `captions` are complete. A collective call; every worker passes
    equally many rows. One tile of `tile_rows` x `tile_rows` pairs is in memory at a time.
    Raises: ValueError on an empty batch.
    """
    tiles = TiledLoss(local, policy, scale=scale, bias=bias, num_images=num_images, tile_rows=tile_rows)
    if world_size() == 1:
        caption_grads = tiles.add(local)
    elif exchange == "ring":
        caption_grads = _ring_exchange(
            local, tiles.add, with_images=policy.photo_cosine_threshold is not None
        )
    else:
        caption_grads = _gather_exchange(
            local, tiles.add, with_images=policy.photo_cosine_threshold is not None
        )
    return tiles.result(caption_grads)


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


def _ring_exchange(local: Pairs, add_block: _AddBlock, *, with_images: bool) -> Tensor:
    workers = world_size()
    block, grads = local, torch.zeros_like(local.captions)
    for hop in range(workers):
        is_last = hop == workers - 1
        if not is_last:  # transfer the next block while this one is compared
            next_block = _RingTransfer(_pack(block, with_images=with_images))
        grads += add_block(block)
        (grads,) = _RingTransfer([grads]).wait()  # the last hop returns the local gradients
        if not is_last:
            block = _unpack(next_block.wait(), with_images=with_images)
    return grads


class _RingTransfer:
    """Sends tensors to the next worker and receives those of the previous one."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        rank, workers = dist.get_rank(), world_size()
        self._sent = [tensor.contiguous() for tensor in tensors]  # must stay alive until `wait`
        self._received = [torch.empty_like(tensor) for tensor in self._sent]
        sends = [dist.P2POp(dist.isend, tensor, (rank + 1) % workers) for tensor in self._sent]
        receives = [dist.P2POp(dist.irecv, tensor, (rank - 1) % workers) for tensor in self._received]
        self._requests = dist.batch_isend_irecv([*sends, *receives])

    def wait(self) -> list[Tensor]:
        """The received tensors, once they have arrived."""
        for request in self._requests:
            request.wait()
        return self._received


def _gather_exchange(local: Pairs, add_block: _AddBlock, *, with_images: bool) -> Tensor:
    packed = [gather_rows(tensor) for tensor in _pack(local, with_images=with_images)]
    grads = add_block(_unpack(packed, with_images=with_images))
    dist.all_reduce(grads)  # then a slice: gloo has no reduce-scatter
    start = dist.get_rank() * len(local)
    return grads[start : start + len(local)]


def _pack(block: Pairs, *, with_images: bool) -> list[Tensor]:
    """Two tensors, since each tensor costs a message: the vectors, and the integer fields as columns."""
    vectors = torch.cat([block.captions, block.images], dim=1) if with_images else block.captions
    return [vectors, torch.stack([getattr(block, name) for name in _INTEGER_FIELDS], dim=1)]


def _unpack(packed: Sequence[Tensor], *, with_images: bool) -> Pairs:
    vectors, integers = packed
    captions, images = vectors.chunk(2, dim=1) if with_images else (vectors, vectors[:, :0])
    return Pairs(images, captions, **dict(zip(_INTEGER_FIELDS, integers.unbind(dim=1), strict=True)))
