"""Training on a part of each photo's patches, so more photos a second (FLIP, Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@contextmanager
def dropped_patches(vision_model: Any, seeds: Int64[Tensor, " b"] | None, dropout: float) -> Iterator[None]:
    """Inside the block, the layers of a SigLIP image tower see only the patches that `kept_patches` returns.

    All of them without `seeds` of the photos.
    """
    if not dropout or seeds is None:
        yield
        return

    def keep(_: Any, __: Any, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        kept = kept_patches(seeds, patches.shape[1], dropout)
        return patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))

    hook = vision_model.embeddings.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def kept_patches(seeds: Int64[Tensor, " b"], num_patches: int, dropout: float) -> Int64[Tensor, "b k"]:
    """Random patches of each photo, a pure function of its seed, equal on every device.

    The random numbers are those of splitmix64 (Steele et al. 2014).
    """
    counter = seeds[:, None] * num_patches + torch.arange(num_patches, device=seeds.device)
    mixed = (counter + 1) * -0x61C8864680B583EB  # products wrap around
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        mixed = (mixed ^ (mixed >> shift & (1 << 64 - shift) - 1)) * factor
    kept = mixed.argsort(dim=1, stable=True)[:, : num_kept_patches(num_patches, dropout)]
    return kept.sort(dim=1).values


def num_kept_patches(num_patches: int, dropout: float) -> int:
    """How many patches of a photo the image tower sees; at least one."""
    return max(1, round(num_patches * (1.0 - dropout)))
