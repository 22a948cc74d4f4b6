"""A model made ready to train on this worker: what is frozen, how it is wrapped, what updates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule

from raysys import storage
from raysys.config.schema import LoraConfig, TrainConfig
from raysys.encoder import siglip
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.train.model import lora, optim, parallel
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.model.ema import Ema

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class TrainState:
    """All that changes while training, and what moves it."""

    accelerator: Accelerator
    model: Any
    """The SigLIP model itself: its state has the names of a checkpoint, unless there are low-rank updates."""
    towers: torch.nn.Module
    """What a step calls: `DualEncoder` over the model, wrapped for the exchange of gradients."""
    optimizers: Sequence[torch.optim.Optimizer]
    schedules: Sequence[torch.optim.lr_scheduler.LRScheduler]
    base: DualEncoder | None
    """The frozen start, where the method holds the model near it."""
    ema: Ema | None = None
    lora: LoraConfig | None = None

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs: copies of whole tensors on the CPU, the same for any number of workers.

        On other workers than rank 0 it is empty. Sharded workers call it together. `weights` are in it where
        they are not those of `model`.
        """
        model, averages = self._whole()
        optimizers = self._optimizer_states()
        if not self.accelerator.is_main_process:
            return {}
        state = {
            "model": {name: model[name] for name in self._changing()},
            "optimizers": optimizers,
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }
        if self.ema is not None:
            state["ema"] = averages
        if self.ema is not None or self.lora is not None:
            state["weights"] = self._exported(model, averages)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave on rank 0, on every worker; sharded ones call it together.

        The learning rate follows the engine's own schedule: a run that was made longer goes on along the
        longer curve, from where that is at this step.
        """
        parallel.load_full_tensors(self._changing(), state["model"])
        if self.ema is not None:
            parallel.load_full_tensors(self.ema.averages, state["ema"])
        if self._is_sharded:
            set_optimizer_state_dict(self.model, list(self.optimizers), state["optimizers"], options=_WHOLE)
        else:
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
            optim.follow_own_curve(schedule)

    def weights(self) -> dict[str, Tensor]:
        """What a bundle should hold, under the names of a checkpoint; empty on other workers than rank 0.

        Averages where they are kept, low-rank updates merged. Sharded workers call it together.
        """
        model, averages = self._whole()
        return self._exported(model, averages) if self.accelerator.is_main_process else {}

    @property
    def _is_sharded(self) -> bool:
        return isinstance(self.towers, FSDPModule)

    def _changing(self) -> dict[str, Tensor]:
        """The part of the model's state that training changes; without low-rank updates all is kept."""
        state: dict[str, Tensor] = self.model.state_dict()
        if self.lora is None:
            return state
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in state.items() if name in trained}

    def _whole(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The model's state and the averages."""
        keep = self.accelerator.is_main_process
        averages = self.ema.averages if self.ema is not None else {}
        model = parallel.whole_on_cpu(self.model.state_dict(), keep=keep)
        return model, parallel.whole_on_cpu(averages, keep=keep)

    def _exported(self, model: dict[str, Tensor], averages: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = {**model, **averages}
        return weights if self.lora is None else lora.merged(weights, self.lora)

    def _optimizer_states(self) -> Any:
        """By the names of parameters where they are sharded, else one after the other."""
        if self._is_sharded:
            return get_optimizer_state_dict(self.model, list(self.optimizers), options=_WHOLE)
        return [parallel.copied_to_cpu(optimizer.state_dict()) for optimizer in self.optimizers]


def open_accelerator(section: TrainConfig, world_size: int) -> Accelerator:
    """The worker's device, precision and group, held against the size that the group should have."""
    precision = "bf16" if section.precision == "bf16" else "no"
    # On a CPU a plain Accelerator() trains every worker alone and says nothing.
    accelerator = Accelerator(cpu=not section.use_gpu, mixed_precision=precision)
    assert accelerator.num_processes == world_size, f"{accelerator.num_processes=} in a group of {world_size}"
    return accelerator


def make_train_state(
    start_uri: str, image: ImagePreprocessing, section: TrainConfig, num_steps: int, accelerator: Accelerator
) -> TrainState:
    """The starting model on this worker's device, with optimisers and schedules for `num_steps`.

    Raises: InputError if the model has not what is to be frozen or updated, or if peft is wanted and missing.
    """
    with storage.readable_folder(start_uri) as folder:
        model = siglip.load_model(folder)
        base = _base(folder, image, accelerator) if section.method == "distil" else None
    if section.lora is not None:
        lora.add_updates(model, section.lora)
    optim.freeze(model, section)
    towers = DualEncoder(model.to(accelerator.device), image)
    if section.activation_checkpointing:
        towers.checkpoint_activations()
    if section.compile:
        towers.compile_layers() if section.parallel == "fsdp" else towers.compile_towers()
    wrapped = parallel.distribute(towers, section, accelerator)
    optimizers = optim.make_optimizers(model, section)
    factor = optim.learning_rate_factor(num_steps, section.warmup_fraction)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    ema = Ema(model.named_parameters(), section.ema_decay) if section.ema_decay is not None else None
    return TrainState(accelerator, model, wrapped, optimizers, schedules, base, ema, section.lora)


def _base(folder: Path, image: ImagePreprocessing, accelerator: Accelerator) -> DualEncoder:
    """The start in the precision of the training, which nothing changes."""
    towers = DualEncoder(siglip.load_model(folder), image).requires_grad_(False)
    base: DualEncoder = accelerator.prepare_model(towers, evaluation_mode=True)
    return base
