"""What updates the weights: optimisers, their learning rates, frozen parameters, and the moving average.

AdamW for everything, or Muon for the matrices of the image tower. Weight decay applies to matrices only.
The learning rate warms up linearly and then follows a cosine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.train.model.distributed import local_shards
from raysys.train.model.muon import CpuMuon

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_TOWERS = {"image": "vision_model", "text": "text_model"}
_LOSS_PARAMETERS = ("logit_scale", "logit_bias")


def freeze(model: torch.nn.Module, section: TrainConfig) -> None:
    """Exclude the parts of the model that the configuration freezes from training.

    Raises: InputError if a tower has fewer layers than the configuration freezes, or if nothing is left to
    train.
    """
    if section.frozen_image_layers == section.frozen_text_layers == "all":
        raise InputError("train.frozen_text_layers: all, as in the image tower; train at least one tower")
    for kind, frozen in (("image", section.frozen_image_layers), ("text", section.frozen_text_layers)):
        tower = _TOWERS[kind]
        depth = _num_layers(model, tower)
        if frozen != "all" and frozen > depth:
            raise InputError(
                f"train.frozen_{kind}_layers: {frozen}, but the {kind} tower has {depth} layers; lower it"
            )
        lowest = _lowest_trained_level(frozen, depth, section)
        for name, parameter in model.named_parameters():
            if name.startswith(f"{tower}.") and _level(name, depth) < lowest:
                parameter.requires_grad_(False)


def _lowest_trained_level(frozen: int | str, depth: int, section: TrainConfig) -> int:
    """The lowest level of a tower that is trained; see `_level`."""
    if frozen == "all":
        return depth + 2
    lowest = int(frozen) + 1 if frozen else 0
    if section.method == "top_layers":
        lowest = max(lowest, depth - section.robust.top_layers + 1, 1)
    return lowest


def make_optimizers(model: torch.nn.Module, section: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2017), preceded by Muon with `train.optimizer: muon`."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    # Orthogonal updates help in the layers of the image tower.
    in_layers = [(name, p) for name, p in trained if "vision_model" in name and ".layers." in name]
    matrices = {name: p for name, p in in_layers if p.ndim == 2 and section.optimizer == "muon"}
    loss_parameters = [parameter for name, parameter in trained if name in _LOSS_PARAMETERS]
    others = [(name, p) for name, p in trained if name not in matrices and name not in _LOSS_PARAMETERS]
    groups = [
        *_groups(model, others, section.learning_rate, section),
        {
            "params": loss_parameters,
            "weight_decay": 0.0,
            "lr": section.logit_scale_learning_rate or section.learning_rate,
        },
    ]
    adamw = torch.optim.AdamW(groups, lr=section.learning_rate, betas=(0.9, section.beta2), fused=True)
    if not matrices:
        return [adamw]
    learning_rate = section.muon_learning_rate
    muon_groups = _groups(model, list(matrices.items()), learning_rate, section)
    is_on_cpu = all(matrix.device.type == "cpu" for matrix in matrices.values())
    muon = (CpuMuon if is_on_cpu else torch.optim.Muon)(
        muon_groups, lr=learning_rate, weight_decay=section.weight_decay
    )
    return [muon, adamw]


def make_head_optimizer(head: torch.nn.Linear, section: TrainConfig) -> torch.optim.Optimizer:
    """AdamW without weight decay: the loss of the teacher does not depend on the head's norm."""
    assert section.teacher is not None
    learning_rate, betas = section.teacher.head_learning_rate, (0.9, section.beta2)
    return torch.optim.AdamW(head.parameters(), lr=learning_rate, betas=betas, weight_decay=0.0, fused=True)


@torch.no_grad()
def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Allocate what the optimiser would at its first step, with the same values; weights do not change.

    A step with gradients of zero at a learning rate of zero allocates it, and zeros are its first values.
    """
    if optimizer.state:
        return
    learning_rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, learning_rate in zip(optimizer.param_groups, learning_rates, strict=True):
        group["lr"] = learning_rate
    for parameter in parameters:
        parameter.grad = None
        for value in optimizer.state[parameter].values():
            value.zero_()


def _groups(
    model: torch.nn.Module, named: Sequence[tuple[str, Parameter]], learning_rate: float, section: TrainConfig
) -> list[dict[str, Any]]:
    """Parameters grouped by learning rate and weight decay: highest rate first, matrices before vectors."""
    groups: dict[tuple[float, bool], list[Parameter]] = {}
    for name, parameter in named:
        depth = _num_layers(model, name.partition(".")[0])
        below_top = depth + 1 - _level(name, depth)
        factor = section.layer_decay**below_top
        groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * factor,
            "weight_decay": section.weight_decay if is_matrix else 0.0,
        }
        for (factor, is_matrix), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def _level(name: str, depth: int) -> int:
    """A parameter's height in its tower: 0 for embeddings, then layers 1 to `depth`, then `depth` + 1."""
    if ".embeddings." in name:
        return 0
    match = _LAYER.search(name)
    return int(match[1]) + 1 if match else depth + 1


def lowest_trained_level(model: torch.nn.Module, tower: str) -> int:
    """The lowest level (see `_level`) with a trained parameter; one above the head if the tower is frozen."""
    depth = _num_layers(model, tower)
    trained = (
        name for name, p in model.named_parameters() if p.requires_grad and name.startswith(f"{tower}.")
    )
    return min((_level(name, depth) for name in trained), default=depth + 2)


def _num_layers(model: torch.nn.Module, tower: str) -> int:
    matches = (_LAYER.search(name) for name, _ in model.named_parameters() if name.startswith(f"{tower}."))
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def learning_rate_factor(num_steps: int, warmup_fraction: float) -> Callable[[int], float]:
    """Step -> fraction of the peak learning rate: a linear warm-up, then a cosine to 0."""
    warmup = max(1, round(num_steps * warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, num_steps - warmup)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return factor


def recompute_learning_rates(schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Set the learning rates of the next step by this schedule, after loading the state of a shorter run."""
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    factors = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    learning_rates = [base * factor(schedule.last_epoch) for base, factor in factors]
    for group, learning_rate in zip(schedule.optimizer.param_groups, learning_rates, strict=True):
        group["lr"] = learning_rate
    schedule.load_state_dict({**schedule.state_dict(), "_last_lr": learning_rates})


class Ema:
    """An exponential moving average of the trained weights; it starts at their present values.

    Each worker averages its own shard of a sharded parameter.
    """

    def __init__(self, named: Iterable[tuple[str, Parameter]], decay: float) -> None:
        trained = {name: parameter for name, parameter in named if parameter.requires_grad}
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in trained.items()}
        self._decay = decay
        self._average_shards = local_shards(self.averages.values())
        self._parameter_shards = local_shards(parameter.detach() for parameter in trained.values())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averages instead of its trained weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def update(self) -> None:
        """Average in the weights after a step."""
        torch._foreach_lerp_(self._average_shards, self._parameter_shards, 1.0 - self._decay)

    @torch.no_grad()
    def _swap(self) -> None:
        # One tensor at a time: a copy of all weights would take as much memory as the average.
        for average, parameter in zip(self._average_shards, self._parameter_shards, strict=True):
            trained = parameter.clone()
            parameter.copy_(average)
            average.copy_(trained)
