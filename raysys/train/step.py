"""One training step: embed the batch, compute the loss over the global batch, backpropagate, update.

The loss returns the gradients of the embeddings. With micro-batches the towers first embed the full batch
without a graph, then run again, one micro-batch at a time, to backpropagate these gradients (gradient
caching, Gao et al. 2021). The last micro-batch runs only once, because its graph is kept. The update equals
the full batch's; activation memory is one micro-batch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.distributed as dist
from jaxtyping import Float, Float16, Int64
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from raysys.columns import CAPTION_KEYS, GROUP_KEYS, PATCH_SEEDS, PIXELS, TEACHER, TOKENS
from raysys.config.schema import TrainConfig
from raysys.train.loss import (
    NO_CAPTION,
    gather_rows,
    local_pairs,
    loss_and_gradients,
    teacher_loss,
    world_size,
)
from raysys.train.model import TrainState
from raysys.train.model.distributed import all_reduce_unsharded_grads, clip_grad_norm, no_sync
from raysys.train.model.dual_encoder import DualEncoder, EmbeddedBatch
from raysys.train.step_metrics import StepResult, WeightChange


def train_step(
    state: TrainState, batch: dict[str, Tensor], section: TrainConfig, *, measure_weights: bool = False
) -> StepResult:
    """Update the weights by one global batch.

    `batch` is this worker's part of it, on its device or in host memory. A collective call. On a GPU it only
    queues the step; `measure_weights` adds the metrics of `WeightChange`.
    """
    model = state.model
    weight_change = WeightChange(model) if measure_weights else None
    local_losses = backward(state.towers, batch, section, state.start, state.teacher_head)
    grad_norm = clip_grad_norm(state.towers.parameters(), section.max_grad_norm)
    for optimizer, schedule in zip(state.optimizers, state.schedules, strict=True):
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(section.max_logit_scale))
    if state.ema is not None:
        state.ema.update()
    metrics = {
        **{name: state.accelerator.reduce(loss, reduction="sum") for name, loss in local_losses.items()},
        "grad_norm": grad_norm,
        "scale": model.logit_scale.detach().exp(),
        "bias": model.logit_bias.detach(),
    }
    return StepResult({**metrics, **(weight_change.metrics() if weight_change else {})})


def warm_up_ddp_buckets(state: TrainState, batch: dict[str, Tensor], section: TrainConfig) -> None:
    """Run one backward pass and drop its gradients, so that DDP rebuilds its buckets before the first step.

    DDP rebuilds its buckets after the first backward pass. With three or more workers the rounding of summed
    gradients depends on their positions in a bucket, so the first step after a restart would differ in its
    last bits.
    """
    if isinstance(state.towers, DistributedDataParallel) and world_size() > 2:
        backward(state.towers, batch, section, state.start, state.teacher_head)
        for optimizer in state.optimizers:
            optimizer.zero_grad()


def backward(
    towers: torch.nn.Module,
    batch: dict[str, Tensor],
    section: TrainConfig,
    start: DualEncoder | None = None,
    teacher_head: torch.nn.Linear | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Accumulate the gradients of the global loss in all weights, and return this worker's part of it.

    The result has `loss` and, with `teacher_head`, the teacher's part in it as `teacher_loss`, before its
    weight. Photos and captions move to the device of the towers one micro-batch at a time. `start` is the
    frozen start of `train.method: distil`. A collective call.
    """
    device = next(towers.parameters()).device
    *others, kept = parts = _micro_batches(batch, section.micro_batch_size)
    keys, groups = (batch[name].to(device, non_blocking=True) for name in (CAPTION_KEYS, GROUP_KEYS))
    start_embedded = _concatenate(_embed_no_grad(start, parts, device)) if start is not None else None
    # The graph of `kept` is freed before the others run again, so it cannot be the one that is synchronised.
    with no_sync(towers) if others else nullcontext():
        embedded = [*_embed_no_grad(towers, others, device), _embed(towers, kept, device)]
        full_batch = _concatenate(embedded)
        local_loss = torch.zeros_like(full_batch.scale)
        grads = EmbeddedBatch(*(torch.zeros_like(value) for value in full_batch))
        _add_sigmoid_losses(local_loss, grads, full_batch, keys, groups, section)
        if start_embedded is not None:
            _add_distillation(local_loss, grads, full_batch, start_embedded, keys[:, 0], section)
        local_losses = {"loss": local_loss}
        if teacher_head is not None:
            vectors = batch[TEACHER].to(device, non_blocking=True)
            local_losses["teacher_loss"] = _add_teacher(
                local_loss, grads, full_batch.images, vectors, teacher_head, section
            )
        *other_grads, kept_grads = _split(grads, [len(part[PIXELS]) for part in parts])
        _backward_from_embeddings(embedded.pop(), kept_grads)
    for number, (part, part_grads) in enumerate(zip(others, other_grads, strict=True), start=1):
        with nullcontext() if number == len(others) else no_sync(towers):
            _backward_from_embeddings(_embed(towers, part, device), part_grads)
    all_reduce_unsharded_grads(towers)
    return local_losses


def run_micro_batch(towers: torch.nn.Module, pairs: dict[str, Tensor]) -> None:
    """Run both passes of one micro-batch with gradients of zero: it takes the memory of one in a step.

    With DDP this is no collective call. The caller drops the gradients.
    """
    with no_sync(towers):
        embedded = _embed(towers, pairs, pairs[PIXELS].device)
        _backward_from_embeddings(embedded, EmbeddedBatch(*(torch.zeros_like(value) for value in embedded)))


def _micro_batches(batch: dict[str, Tensor], size: int | str | None) -> list[dict[str, Tensor]]:
    """`size` rows each, of what the towers need; all rows unless `size` is a number."""
    size = size if isinstance(size, int) else len(batch[PIXELS])
    first_rows = range(0, len(batch[PIXELS]), size)
    names = [name for name in (PIXELS, TOKENS, PATCH_SEEDS) if name in batch]
    return [{name: batch[name][first : first + size] for name in names} for first in first_rows]


def _embed(towers: torch.nn.Module, part: dict[str, Tensor], device: torch.device) -> EmbeddedBatch:
    embedded: EmbeddedBatch = towers(*(rows.to(device, non_blocking=True) for rows in part.values()))
    return embedded


@torch.no_grad()
def _embed_no_grad(
    towers: torch.nn.Module, parts: list[dict[str, Tensor]], device: torch.device
) -> list[EmbeddedBatch]:
    return [_embed(towers, part, device) for part in parts]


@torch.no_grad()
def _concatenate(embedded: Sequence[EmbeddedBatch]) -> EmbeddedBatch:
    return EmbeddedBatch(
        torch.cat([one.images for one in embedded]),
        torch.cat([one.captions for one in embedded]),
        embedded[0].scale,
        embedded[0].bias,
    )


def _split(grads: EmbeddedBatch, sizes: list[int]) -> list[EmbeddedBatch]:
    """The gradients of every micro-batch."""
    parts = zip(grads.images.split(sizes), grads.captions.split(sizes), strict=True)
    none = torch.zeros_like(grads.scale)
    *others, last = (EmbeddedBatch(images, captions, none, none) for images, captions in parts)
    # The gradients of scale and bias are the full batch's, so they are added once.
    return [*others, last._replace(scale=grads.scale, bias=grads.bias)]


def _add_sigmoid_losses(
    local_loss: Float[Tensor, ""],
    grads: EmbeddedBatch,
    embedded: EmbeddedBatch,
    keys: Int64[Tensor, "b kinds"],
    groups: Int64[Tensor, " b"],
    section: TrainConfig,
) -> None:
    """Add this worker's part of the loss, and the gradients of the global loss with respect to `embedded`.

    Each kind of caption (the title, then the attributes of `train.caption_weights`) adds a separate loss.
    """
    *all_keys, all_groups = gather_rows(torch.cat([keys, groups[:, None]], dim=1)).unbind(dim=1)
    for kind, weight in enumerate((1.0, *section.caption_weights.values())):
        pairs = local_pairs(
            embedded.images.detach(),
            embedded.captions[:, kind].detach(),
            keys[:, kind],
            groups,
            first_row=dist.get_rank() * len(keys) if world_size() > 1 else 0,
            all_keys=all_keys[kind],
            all_groups=all_groups,
        )
        result = loss_and_gradients(
            pairs,
            section.false_negatives,
            scale=embedded.scale.detach(),
            bias=embedded.bias.detach(),
            num_images=section.batch_size,  # workers with fewer rows are padded
            tile_rows=section.loss_tile_rows,
            compile_backend="inductor" if section.compile and keys.is_cuda else None,
        )
        local_loss.add_(result.loss, alpha=weight)
        grads.images.add_(result.images, alpha=weight)
        grads.captions[:, kind].add_(result.captions, alpha=weight)
        grads.scale.add_(result.scale, alpha=weight)
        grads.bias.add_(result.bias, alpha=weight)


@torch.no_grad()
def _add_distillation(
    local_loss: Float[Tensor, ""],
    grads: EmbeddedBatch,
    embedded: EmbeddedBatch,
    start: EmbeddedBatch,
    title_keys: Int64[Tensor, " b"],
    section: TrainConfig,
) -> None:
    """Add, in place, the mean squared distance to the start's embeddings, and its gradients.

    A row without a title is a skipped sample and has weight 0.
    """
    # The mean is over the global batch.
    weights = (title_keys != NO_CAPTION).to(embedded.images)[:, None] / section.batch_size
    image_change = embedded.images - start.images
    title_change = embedded.captions[:, 0] - start.captions[:, 0]
    distance = (weights * (image_change.square() + title_change.square())).sum()
    local_loss.add_(distance, alpha=section.robust.distil_weight)
    grads.images.add_(2.0 * weights * image_change, alpha=section.robust.distil_weight)
    grads.captions[:, 0].add_(2.0 * weights * title_change, alpha=section.robust.distil_weight)


def _add_teacher(
    local_loss: Float[Tensor, ""],
    grads: EmbeddedBatch,
    images: Float[Tensor, "b d"],
    vectors: Float16[Tensor, "b k"],
    head: torch.nn.Linear,
    section: TrainConfig,
) -> Float[Tensor, ""]:
    """Add the loss of `train.teacher` and its gradients in place; returns this loss before its weight."""
    assert section.teacher is not None
    weight = section.teacher.weight
    loss, image_grads, head_grads = teacher_loss(
        images, vectors, head.weight, section.teacher, tile_rows=section.loss_tile_rows
    )
    local_loss.add_(loss, alpha=weight)
    grads.images.add_(image_grads, alpha=weight)
    head.weight.grad = weight * head_grads
    return loss


def _backward_from_embeddings(embedded: EmbeddedBatch, grads: EmbeddedBatch) -> None:
    # The outputs of a frozen tower require no gradient.
    trained = [(value, grad) for value, grad in zip(embedded, grads, strict=True) if value.requires_grad]
    # DDP averages gradients over workers, but the loss is their sum.
    torch.autograd.backward([value for value, _ in trained], [grad * world_size() for _, grad in trained])
