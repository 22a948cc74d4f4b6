"""Every worker's images meet every worker's captions, and each caption's gradient comes home.

`ring`: blocks of captions go round, one worker further at a time, while the last ones are compared; what
they felt follows them. Memory is that of two blocks, however many workers there are. `gather`: everybody
gets all captions at once: fewer messages, memory that grows with the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Literal, TypeAlias

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig
from raysys.train.loss.pairs import Pairs
from raysys.train.loss.tiles import Gradients, TiledLoss

Exchange = Literal["ring", "gather"]
_NUMBERS = [field.name for field in fields(Pairs) if field.name not in ("images", "captions")]
_Compare: TypeAlias = Callable[[Pairs], Tensor]  # a block of captions -> what they feel


@torch.no_grad()
def loss_and_gradients(
    own: Pairs,
    how: FalseNegativesConfig,
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    num_images: int,
    tile_rows: int,
    exchange: Exchange = "ring",
) -> Gradients:
    """This worker's share of the loss of the global batch, and gradients of the whole loss.

    The shares of all workers add up to the loss, as do what scale and bias feel here. `images` and
    `captions` are complete: what this worker's rows feel of the whole loss. All workers call it together,
    with equally many rows. A tile of `tile_rows` x `tile_rows` is in memory at a time.
    Raises: ValueError on an empty batch.
    """
    tiles = TiledLoss(own, how, scale=scale, bias=bias, num_images=num_images, tile_rows=tile_rows)
    if world_size() == 1:
        captions = tiles.add(own)
    elif exchange == "ring":
        captions = _by_ring(own, tiles.add, with_images=how.photo_cosine_threshold is not None)
    else:
        captions = _by_gather(own, tiles.add, with_images=how.photo_cosine_threshold is not None)
    return tiles.gradients(captions)


def world_size() -> int:
    """Workers that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_rows(local: Tensor) -> Tensor:
    """The rows of all workers in order of rank; nothing flows back."""
    if world_size() == 1:
        return local
    everything = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(everything, local.contiguous())
    return torch.cat(everything)


def _by_ring(own: Pairs, compare: _Compare, *, with_images: bool) -> Tensor:
    workers = world_size()
    block, felt = own, torch.zeros_like(own.captions)
    for hop in range(workers):
        is_last = hop == workers - 1
        if not is_last:  # the next block is on its way while this one is compared
            travelling = _PassedOn(_parts(block, with_images=with_images))
        felt += compare(block)
        (felt,) = _PassedOn([felt]).wait()  # after the last hop the gradient of one's own block is here
        if not is_last:
            block = _pairs(travelling.wait(), with_images=with_images)
    return felt


class _PassedOn:
    """Tensors under way to the next worker, and those of the last one under way to here."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        rank, workers = dist.get_rank(), world_size()
        self._sent = [tensor.contiguous() for tensor in tensors]  # kept until they have arrived
        self._received = [torch.empty_like(tensor) for tensor in self._sent]
        sends = [dist.P2POp(dist.isend, tensor, (rank + 1) % workers) for tensor in self._sent]
        receives = [dist.P2POp(dist.irecv, tensor, (rank - 1) % workers) for tensor in self._received]
        self._requests = dist.batch_isend_irecv([*sends, *receives])

    def wait(self) -> list[Tensor]:
        """What has come."""
        for request in self._requests:
            request.wait()
        return self._received


def _by_gather(own: Pairs, compare: _Compare, *, with_images: bool) -> Tensor:
    parts = [gather_rows(part) for part in _parts(own, with_images=with_images)]
    felt = compare(_pairs(parts, with_images=with_images))
    dist.all_reduce(felt)  # and a cut: gloo has no reduce-scatter
    start = dist.get_rank() * len(own)
    return felt[start : start + len(own)]


def _parts(block: Pairs, *, with_images: bool) -> list[Tensor]:
    """Few tensors, for each costs a message: the vectors, and the numbers side by side."""
    vectors = torch.cat([block.captions, block.images], dim=1) if with_images else block.captions
    return [vectors, torch.stack([getattr(block, name) for name in _NUMBERS], dim=1)]


def _pairs(parts: Sequence[Tensor], *, with_images: bool) -> Pairs:
    vectors, numbers = parts
    captions, images = vectors.chunk(2, dim=1) if with_images else (vectors, vectors[:, :0])
    return Pairs(images, captions, **dict(zip(_NUMBERS, numbers.unbind(dim=1), strict=True)))
