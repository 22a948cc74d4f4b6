"""One training step: both towers, the loss over the global batch, backward, update.

The loss hands out gradients of the vectors. With micro-batches the towers run twice, first for all vectors,
then piece by piece for the gradients of the weights (cached gradients, Gao et al. 2021): the step is that of
the whole batch, the memory that of a piece.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from raysys.columns import CAPTION_KEYS, GROUP_KEYS, PIXELS, TOKENS
from raysys.config.schema import TrainConfig
from raysys.train.loss import gather_rows, local_pairs, loss_and_gradients, world_size
from raysys.train.model import TrainState
from raysys.train.model.distil import drift
from raysys.train.model.dual_encoder import DualEncoder, Embedded
from raysys.train.model.parallel import average_whole_gradients, clip_gradients, no_sync


@dataclass(frozen=True)
class StepResult:
    """What a step tells; plain floats of the global batch."""

    loss: float
    grad_norm: float
    scale: float
    bias: float


def train_step(engine: TrainState, batch: dict[str, Tensor], section: TrainConfig) -> StepResult:
    """Update the weights by one global batch; `batch` is this worker's part of it, here or on the host."""
    accelerator, model = engine.accelerator, engine.model
    share = backward(engine.towers, batch, section, engine.base)
    grad_norm = clip_gradients(engine.towers.parameters(), section.max_grad_norm)
    for optimizer, schedule in zip(engine.optimizers, engine.schedules, strict=True):
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(section.max_logit_scale))
    if engine.ema is not None:
        engine.ema.update()
    loss = accelerator.reduce(share, reduction="sum")
    told = [loss, grad_norm, model.logit_scale.detach().exp(), model.logit_bias.detach()]
    # Together: each number that is asked for waits until the GPU has done all that it was given.
    return StepResult(*torch.stack([number.reshape(()).float() for number in told]).tolist())


def warm_up_ddp_buckets(engine: TrainState, batch: dict[str, Tensor], section: TrainConfig) -> None:
    """Before an attempt's first step: let DDP order its buckets as they stay, by gradients that are dropped.

    It fills them anew after the first backward pass, and the sum of three and more workers' gradients depends
    on where in a bucket they lie: the first step after a restart would differ in its last bits.
    """
    if isinstance(engine.towers, DistributedDataParallel) and world_size() > 2:
        backward(engine.towers, batch, section, engine.base)
        for optimizer in engine.optimizers:
            optimizer.zero_grad()


def backward(
    towers: torch.nn.Module,
    batch: dict[str, Tensor],
    section: TrainConfig,
    base: DualEncoder | None = None,
) -> Float[Tensor, ""]:
    """Give every weight its gradient of the global loss, and return this worker's share of the loss.

    Photos and captions get to the towers' device a micro-batch at a time. `base` is the frozen start, near
    which the towers are held (`train.method=distil`).
    """
    device = next(towers.parameters()).device
    parts = _micro_batches(batch, section.micro_batch_size)
    numbers = {name: batch[name].to(device) for name in (CAPTION_KEYS, GROUP_KEYS)}
    start = _embed_no_grad(base, parts, device) if base is not None else None
    if len(parts) == 1:
        embedded = _embedded(towers, parts[0], device)
        share, felt = _embedding_grads(embedded, numbers, section, start)
        _backward_from_embeddings(embedded, felt)
    else:
        whole = _embed_no_grad(towers, parts, device)
        share, felt = _embedding_grads(whole, numbers, section, start)
        _backward_in_micro_batches(towers, parts, felt, device)
    average_whole_gradients(towers)
    return share


def _micro_batches(batch: dict[str, Tensor], size: int | None) -> list[dict[str, Tensor]]:
    size = size or len(batch[PIXELS])
    starts = range(0, len(batch[PIXELS]), size)
    return [{name: batch[name][start : start + size] for name in (PIXELS, TOKENS)} for start in starts]


def _embedded(towers: torch.nn.Module, part: dict[str, Tensor], device: torch.device) -> Embedded:
    pixels, tokens = (part[name].to(device, non_blocking=True) for name in (PIXELS, TOKENS))
    embedded: Embedded = towers(pixels, tokens)
    return embedded


@torch.no_grad()
def _embed_no_grad(towers: torch.nn.Module, parts: list[dict[str, Tensor]], device: torch.device) -> Embedded:
    """The vectors of all parts together."""
    pieces = [_embedded(towers, part, device) for part in parts]
    return Embedded(
        torch.cat([piece.images for piece in pieces]),
        torch.cat([piece.captions for piece in pieces]),
        pieces[0].scale,
        pieces[0].bias,
    )


def _backward_in_micro_batches(
    towers: torch.nn.Module, parts: list[dict[str, Tensor]], felt: Embedded, device: torch.device
) -> None:
    sizes = [len(part[PIXELS]) for part in parts]
    of_parts = zip(parts, felt.images.split(sizes), felt.captions.split(sizes), strict=True)
    for number, (part, images, captions) in enumerate(of_parts, start=1):
        is_last = number == len(parts)
        with nullcontext() if is_last else no_sync(towers):
            # Scale and bias feel the whole batch at once.
            here = Embedded(images, captions, felt.scale * float(is_last), felt.bias * float(is_last))
            _backward_from_embeddings(_embedded(towers, part, device), here)


def _embedding_grads(
    embedded: Embedded, batch: dict[str, Tensor], section: TrainConfig, start: Embedded | None
) -> tuple[Float[Tensor, ""], Embedded]:
    """This worker's share of the loss, and what its vectors, scale and bias feel of the whole.

    Each kind of caption (title, then the attributes of `train.caption_weights`) has a loss of its own.
    `start` are the vectors of the same rows that the method holds these near.
    """
    keys, groups = batch[CAPTION_KEYS], batch[GROUP_KEYS]
    all_keys, all_groups = gather_rows(keys), gather_rows(groups)
    share = torch.zeros_like(embedded.scale)
    total = Embedded(*(torch.zeros_like(value) for value in embedded))
    for kind, weight in enumerate((1.0, *section.caption_weights.values())):
        own = local_pairs(
            embedded.images.detach(),
            embedded.captions[:, kind].detach(),
            keys[:, kind],
            groups,
            first_row=dist.get_rank() * len(keys) if world_size() > 1 else 0,
            all_keys=all_keys[:, kind],
            all_groups=all_groups,
        )
        found = loss_and_gradients(
            own,
            section.false_negatives,
            scale=embedded.scale.detach(),
            bias=embedded.bias.detach(),
            num_images=section.batch_size,  # uneven shares are padded
            tile_rows=section.loss_tile_rows,
            exchange=section.loss_exchange,
        )
        share.add_(found.loss, alpha=weight)
        total.images.add_(found.images, alpha=weight)
        total.captions[:, kind].add_(found.captions, alpha=weight)
        total.scale.add_(found.scale, alpha=weight)
        total.bias.add_(found.bias, alpha=weight)
    if start is not None:
        weight = section.robust.distil_weight
        gone = drift(embedded, start, keys[:, 0], num_images=section.batch_size)
        share.add_(gone.distance, alpha=weight)
        total.images.add_(gone.images, alpha=weight)
        total.captions[:, 0].add_(gone.titles, alpha=weight)
    return share, total


def _backward_from_embeddings(embedded: Embedded, felt: Embedded) -> None:
    # DDP averages gradients over workers; the loss is a sum over them.
    # What comes out of a frozen tower feels nothing.
    felt_by = [
        (value, gradient) for value, gradient in zip(embedded, felt, strict=True) if value.requires_grad
    ]
    torch.autograd.backward(
        [value for value, _ in felt_by], [gradient * world_size() for _, gradient in felt_by]
    )
