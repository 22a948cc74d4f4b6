"""Optimisers: AdamW for everything, or Muon for the image tower's matrices; and their schedule.

Weight decay falls on matrices alone. The learning rate warms up and falls as a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch.nn import Parameter

from raysys.config.schema import TrainConfig
from raysys.train.muon import Muon

_OF_LOSS = ("logit_scale", "logit_bias")


def make_optimizers(model: torch.nn.Module, section: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2017), and Muon before it if `train.optimizer` says so."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = dict(_muon_matrices(trained)) if section.optimizer == "muon" else {}
    of_loss = [parameter for name, parameter in trained if name in _OF_LOSS]
    others = [parameter for name, parameter in trained if name not in matrices and name not in _OF_LOSS]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        {
            "params": of_loss,
            "weight_decay": 0.0,
            "lr": section.scale_learning_rate or section.learning_rate,
        },
    ]
    adamw = torch.optim.AdamW(groups, lr=section.learning_rate, betas=(0.9, section.beta2))
    if not matrices:
        return [adamw]
    return [Muon(matrices.values(), lr=section.muon_learning_rate, weight_decay=section.weight_decay), adamw]


def _muon_matrices(parameters: list[tuple[str, Parameter]]) -> Iterator[tuple[str, Parameter]]:
    """The matrices inside the image tower's layers: there orthogonal updates pay."""
    for name, parameter in parameters:
        if parameter.ndim == 2 and "vision_model" in name and ".layers." in name:
            yield name, parameter


def learning_rate_factor(num_steps: int, warmup_fraction: float) -> Callable[[int], float]:
    """Step -> share of the peak learning rate: linear up, then a cosine to 0."""
    warmup = max(1, round(num_steps * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, num_steps - warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor
