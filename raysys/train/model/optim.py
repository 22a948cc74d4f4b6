"""Optimisers: AdamW for everything, or Muon for the image tower's matrices; and their schedule.

Weight decay falls on matrices alone. The learning rate warms up and falls as a cosine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.train.model.muon import Muon

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_TOWERS = {"image": "vision_model", "text": "text_model"}
_OF_LOSS = ("logit_scale", "logit_bias")


def freeze(model: torch.nn.Module, section: TrainConfig) -> None:
    """Take the parts that the configuration freezes out of training.

    Raises: InputError if a tower has fewer layers than are to be frozen, or if nothing is left to train.
    """
    if section.frozen_image_layers == section.frozen_text_layers == "all":
        raise InputError("train.frozen_text_layers: all, as of the image tower; leave one of them to train")
    for kind, frozen in (("image", section.frozen_image_layers), ("text", section.frozen_text_layers)):
        tower = _TOWERS[kind]
        depth = _num_layers(model, tower)
        if frozen != "all" and frozen > depth:
            raise InputError(
                f"train.frozen_{kind}_layers: {frozen}, but the {kind} tower has {depth} layers; lower it"
            )
        lowest = _lowest_trained(frozen, depth, section)
        for name, parameter in model.named_parameters():
            if name.startswith(f"{tower}.") and _level(name, depth) < lowest:
                parameter.requires_grad_(False)


def _lowest_trained(frozen: int | str, depth: int, section: TrainConfig) -> int:
    """The level of a tower from which on it is trained; see `_level`."""
    if frozen == "all":
        return depth + 2
    lowest = int(frozen) + 1 if frozen else 0
    if section.method == "top_layers":
        lowest = max(lowest, depth - section.robust.top_layers + 1, 1)
    return lowest


def make_optimizers(model: torch.nn.Module, section: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2017), and Muon before it if `train.optimizer` says so."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = dict(_muon_matrices(trained)) if section.optimizer == "muon" else {}
    of_loss = [parameter for name, parameter in trained if name in _OF_LOSS]
    others = [(name, p) for name, p in trained if name not in matrices and name not in _OF_LOSS]
    groups = [
        *_groups(model, others, section.learning_rate, section),
        {
            "params": of_loss,
            "weight_decay": 0.0,
            "lr": section.logit_scale_learning_rate or section.learning_rate,
        },
    ]
    adamw = torch.optim.AdamW(groups, lr=section.learning_rate, betas=(0.9, section.beta2), fused=True)
    if not matrices:
        return [adamw]
    rate = section.muon_learning_rate
    of_muon = _groups(model, list(matrices.items()), rate, section)
    return [Muon(of_muon, lr=rate, weight_decay=section.weight_decay), adamw]


def _groups(
    model: torch.nn.Module, named: Sequence[tuple[str, Parameter]], rate: float, section: TrainConfig
) -> list[dict[str, Any]]:
    """Parameters of equal learning rate and weight decay: the fastest first, of these the matrices."""
    groups: dict[tuple[float, bool], list[Parameter]] = {}
    for name, parameter in named:
        depth = _num_layers(model, name.partition(".")[0])
        below_top = depth + 1 - _level(name, depth)
        factor = section.layer_decay**below_top
        groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": parameters, "lr": rate * factor, "weight_decay": section.weight_decay if decays else 0.0}
        for (factor, decays), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def _level(name: str, depth: int) -> int:
    """How far up its tower a parameter stands: 0 embeddings, then the layers from 1, at the top depth + 1."""
    if ".embeddings." in name:
        return 0
    found = _LAYER.search(name)
    return int(found[1]) + 1 if found else depth + 1


def _num_layers(model: torch.nn.Module, tower: str) -> int:
    levels = (_LAYER.search(name) for name, _ in model.named_parameters() if name.startswith(f"{tower}."))
    return max((int(found[1]) + 1 for found in levels if found), default=0)


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


def follow_own_curve(schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Set the learning rates of the next step after a state of another length was taken over."""
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    curves = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    rates = [rate * factor(schedule.last_epoch) for rate, factor in curves]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule.load_state_dict({**schedule.state_dict(), "_last_lr": rates})
