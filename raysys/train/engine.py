"""A model made ready to train on this worker: what is frozen, how it is wrapped, what updates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from raysys import storage
from raysys.config.schema import TrainConfig
from raysys.encoder import siglip
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.train import optim
from raysys.train.towers import TwoTowers


@dataclass(frozen=True)
class Engine:
    """All that changes while training, and what moves it."""

    accelerator: Accelerator
    model: Any
    """The SigLIP model itself: its state has the names of a checkpoint."""
    towers: torch.nn.Module
    """What a step calls: `TwoTowers` over the model, wrapped for the exchange of gradients."""
    optimizers: Sequence[torch.optim.Optimizer]
    schedules: Sequence[torch.optim.lr_scheduler.LRScheduler]
    base: TwoTowers | None
    """The frozen start, where the recipe holds the model near it."""


def open_accelerator(section: TrainConfig, world_size: int) -> Accelerator:
    """The worker's device, precision and group, held against the size that the group should have."""
    precision = "bf16" if section.precision == "bf16" else "no"
    # On a CPU a plain Accelerator() trains every worker alone and says nothing.
    accelerator = Accelerator(cpu=not section.use_gpu, mixed_precision=precision)
    assert accelerator.num_processes == world_size, f"{accelerator.num_processes=} in a group of {world_size}"
    return accelerator


def make_engine(
    start_uri: str, image: ImagePreprocessing, section: TrainConfig, num_steps: int, accelerator: Accelerator
) -> Engine:
    """The starting model on this worker's device, with optimisers and schedules for `num_steps`."""
    with storage.readable_folder(start_uri) as folder:
        model = siglip.load_model(folder).to(accelerator.device)  # before the optimisers look at it
    optim.freeze(model, section)
    optimizers = optim.make_optimizers(model, section)
    factor = optim.learning_rate_factor(num_steps, section.warmup_fraction)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    towers, *prepared = accelerator.prepare(TwoTowers(model, image), *optimizers)
    return Engine(accelerator, model, towers, prepared, schedules, base=None)
