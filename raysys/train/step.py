"""One training step: forward both towers, the loss over the global batch, backward, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from raysys.config.schema import TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import image_features, normalise, text_features
from raysys.records import CAPTION_KEYS, GROUP_KEYS, PIXELS, TOKENS
from raysys.train.loss import gather_rows, pair_targets, sigmoid_loss


class TwoTowers(torch.nn.Module):
    """A SigLIP model as the loss needs it; one forward, so that DDP sees every parameter used."""

    def __init__(self, model: Any, image: ImagePreprocessing) -> None:
        super().__init__()
        self.model = model
        self._image = image

    def forward(
        self, pixels: UInt8[Tensor, "b h w 3"], tokens: Int64[Tensor, "b kinds length"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b kinds d"], Float[Tensor, ""], Float[Tensor, ""]]:
        """Unit vectors of photos and of their captions, and the loss's scale and bias."""
        images = image_features(self.model, normalise(pixels, self._image))
        return (
            torch.nn.functional.normalize(images, dim=-1),
            torch.nn.functional.normalize(self._captions(tokens), dim=-1),
            self.model.logit_scale.exp().squeeze(),
            self.model.logit_bias.squeeze(),
        )

    def _captions(self, tokens: Int64[Tensor, "b kinds length"]) -> Float[Tensor, "b kinds d"]:
        if tokens.shape[1] == 1:  # titles alone rarely repeat, and fixed shapes compile
            return text_features(self.model, tokens[:, 0])[:, None]
        distinct, places = tokens.flatten(0, 1).unique(dim=0, return_inverse=True)
        captions: Tensor = text_features(self.model, distinct)[places]
        return captions.view(*tokens.shape[:2], -1)


@dataclass(frozen=True)
class StepResult:
    """What a step tells; plain floats of the global batch."""

    loss: float
    grad_norm: float
    scale: float
    bias: float


def batch_loss(
    towers: torch.nn.Module, batch: dict[str, Tensor], section: TrainConfig, rank: int
) -> Float[Tensor, ""]:
    """This worker's share of the global loss; the workers' shares add up to it.

    Each kind of caption (title, then the attributes of `train.caption_weights`) has a loss of its own.
    """
    images, captions, scale, bias = towers(batch[PIXELS], batch[TOKENS])
    images, captions = images.float(), gather_rows(captions.float())
    own_keys = batch[CAPTION_KEYS]
    keys, own_groups = gather_rows(own_keys), batch[GROUP_KEYS]
    groups = gather_rows(own_groups)
    first_row = rank * len(own_keys)
    share: Tensor = images.new_zeros(())
    for kind, kind_weight in enumerate((1.0, *section.caption_weights.values())):
        labels, weights = pair_targets(
            own_keys[:, kind],
            keys[:, kind],
            first_row=first_row,
            equal_titles=section.equal_titles,
            image_groups=own_groups,
            caption_groups=groups,
        )
        share = share + kind_weight * sigmoid_loss(
            images, captions[:, kind], labels, weights, scale=scale, bias=bias, num_images=section.batch_size
        )
    return share


def train_step(
    accelerator: Accelerator,
    towers: torch.nn.Module,
    optimizers: list[Any],
    schedules: Sequence[torch.optim.lr_scheduler.LRScheduler],
    batch: dict[str, Tensor],
    section: TrainConfig,
) -> StepResult:
    """Update the weights by one global batch; `batch` is this worker's part of it."""
    with accelerator.autocast():
        share = batch_loss(towers, batch, section, accelerator.process_index)
    # DDP averages gradients over workers; the loss is a sum over them.
    accelerator.backward(share * accelerator.num_processes)
    grad_norm = accelerator.clip_grad_norm_(towers.parameters(), section.clip_norm)
    for optimizer, schedule in zip(optimizers, schedules, strict=True):
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model = accelerator.unwrap_model(towers).model
    return StepResult(
        loss=float(accelerator.reduce(share.detach(), reduction="sum")),
        grad_norm=float(grad_norm or 0.0),
        scale=float(model.logit_scale.detach().exp()),
        bias=float(model.logit_bias.detach()),
    )
