"""One training step: both towers, the loss over the global batch, backward, update.

The loss hands out gradients of the vectors. With micro-batches the towers run twice, first for all vectors,
then piece by piece for the gradients of the weights (cached gradients, Gao et al. 2021): the step is that of
the whole batch, the memory that of a piece.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from raysys.config.schema import TrainConfig
from raysys.records import CAPTION_KEYS, GROUP_KEYS, PIXELS, TOKENS
from raysys.train.engine import Engine
from raysys.train.loss import gather_rows, local_pairs, loss_and_gradients, world_size
from raysys.train.towers import Embedded


@dataclass(frozen=True)
class StepResult:
    """What a step tells; plain floats of the global batch."""

    loss: float
    grad_norm: float
    scale: float
    bias: float


def train_step(engine: Engine, batch: dict[str, Tensor], section: TrainConfig) -> StepResult:
    """Update the weights by one global batch; `batch` is this worker's part of it."""
    accelerator, model = engine.accelerator, engine.model
    share = backward(engine.towers, batch, section, functools.partial(accelerator.no_sync, engine.towers))
    grad_norm = accelerator.clip_grad_norm_(engine.towers.parameters(), section.clip_norm)
    for optimizer, schedule in zip(engine.optimizers, engine.schedules, strict=True):
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(section.max_scale))
    return StepResult(
        loss=float(accelerator.reduce(share, reduction="sum")),
        grad_norm=float(grad_norm or 0.0),
        scale=float(model.logit_scale.detach().exp()),
        bias=float(model.logit_bias.detach()),
    )


def backward(
    towers: torch.nn.Module,
    batch: dict[str, Tensor],
    section: TrainConfig,
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Float[Tensor, ""]:
    """Give every weight its gradient of the global loss, and return this worker's share of the loss.

    `no_sync` holds back the exchange of gradients between workers until the last micro-batch.
    """
    parts = _micro_batches(batch, section.micro_batch_size)
    if len(parts) == 1:
        embedded = towers(batch[PIXELS], batch[TOKENS])
        share, felt = _felt(embedded, batch, section)
        _send_back(embedded, felt)
        return share
    with torch.no_grad():
        pieces = [towers(part[PIXELS], part[TOKENS]) for part in parts]
    whole = Embedded(
        torch.cat([piece.images for piece in pieces]),
        torch.cat([piece.captions for piece in pieces]),
        pieces[0].scale,
        pieces[0].bias,
    )
    share, felt = _felt(whole, batch, section)
    sizes = [len(part[PIXELS]) for part in parts]
    of_parts = zip(parts, felt.images.split(sizes), felt.captions.split(sizes), strict=True)
    for number, (part, images, captions) in enumerate(of_parts, start=1):
        with nullcontext() if number == len(parts) else no_sync():
            # Scale and bias feel the whole batch at once.
            once = float(number == len(parts))
            here = Embedded(images, captions, felt.scale * once, felt.bias * once)
            _send_back(towers(part[PIXELS], part[TOKENS]), here)
    return share


def _micro_batches(batch: dict[str, Tensor], size: int | None) -> list[dict[str, Tensor]]:
    size = size or len(batch[PIXELS])
    parts = [slice(start, start + size) for start in range(0, len(batch[PIXELS]), size)]
    return [{name: rows[part] for name, rows in batch.items()} for part in parts]


def _felt(
    embedded: Embedded, batch: dict[str, Tensor], section: TrainConfig
) -> tuple[Float[Tensor, ""], Embedded]:
    """This worker's share of the loss, and what its vectors, scale and bias feel of the whole.

    Each kind of caption (title, then the attributes of `train.caption_weights`) has a loss of its own.
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
    return share, total


def _send_back(embedded: Embedded, felt: Embedded) -> None:
    # DDP averages gradients over workers; the loss is a sum over them.
    # What comes out of a frozen tower feels nothing.
    felt_by = [
        (value, gradient) for value, gradient in zip(embedded, felt, strict=True) if value.requires_grad
    ]
    torch.autograd.backward(
        [value for value, _ in felt_by], [gradient * world_size() for _, gradient in felt_by]
    )
