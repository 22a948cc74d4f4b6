"""The training state of one worker: the model, its wrapper for several workers, and its optimisers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
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
from raysys.train.model import distributed, lora, optim
from raysys.train.model.dual_encoder import DualEncoder

_FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class TrainState:
    """Everything that changes during training."""

    accelerator: Accelerator
    model: Any
    """The SigLIP model. Without LoRA its state dict has the names of a checkpoint."""
    towers: torch.nn.Module
    """The module that a step calls: a `DualEncoder` of the model, wrapped for DDP or FSDP."""
    optimizers: Sequence[torch.optim.Optimizer]
    schedules: Sequence[torch.optim.lr_scheduler.LRScheduler]
    start: DualEncoder | None
    """The frozen start with `train.method: distil`, else None."""
    ema: optim.Ema | None = None
    lora: LoraConfig | None = None
    teacher_head: torch.nn.Linear | None = None
    """With `train.teacher`: predicts the teacher's vectors. On every worker the same, and never exported. The
    first of `optimizers` updates it."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a restart needs: full tensors on the CPU, independent of the number of workers.

        Empty on all workers except rank 0. A collective call. With an average or LoRA, `weights` holds the
        exported weights; otherwise these are `model`.
        """
        is_main = self.accelerator.is_main_process
        model = distributed.full_tensors_on_cpu(self.model.state_dict(), is_main=is_main)
        averages = self.ema.averages if self.ema is not None else {}
        averages = distributed.full_tensors_on_cpu(averages, is_main=is_main)
        optimizers = self._optimizer_states()
        if not is_main:
            return {}
        state = {
            "model": {name: model[name] for name in self._saved_tensors()},
            "optimizers": optimizers,
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }
        if self.teacher_head is not None:
            state["teacher_head"] = distributed.copy_to_cpu(self.teacher_head.state_dict())
        if self.ema is not None:
            state["ema"] = averages
        if self.ema is not None or self.lora is not None:
            weights = {**model, **averages}
            state["weights"] = weights if self.lora is None else lora.merge_lora(weights, self.lora)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned on rank 0. A collective call; every worker passes the full state.

        The learning rate follows the present schedule: a run with more epochs than before continues on the
        longer curve, at the same step.
        """
        distributed.load_full_tensors(self._saved_tensors(), state["model"])
        if self.ema is not None:
            distributed.load_full_tensors(self.ema.averages, state["ema"])
        if self.teacher_head is not None:
            self.teacher_head.load_state_dict(state["teacher_head"])
        if self._is_sharded:
            set_optimizer_state_dict(
                self.model, list(self.optimizers), state["optimizers"], options=_FULL_STATE
            )
        else:
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
            optim.recompute_learning_rates(schedule)

    def exported_weights(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block the model has the weights of a bundle: the averages, if there are any."""
        return self.ema.applied() if self.ema is not None else contextlib.nullcontext()

    @property
    def _is_sharded(self) -> bool:
        return isinstance(self.towers, FSDPModule)

    def _saved_tensors(self) -> dict[str, Tensor]:
        """The tensors of the model that a checkpoint stores: all of them, or with LoRA the trained ones."""
        state: dict[str, Tensor] = self.model.state_dict()
        if self.lora is None:
            return state
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in state.items() if name in trained}

    def _optimizer_states(self) -> Any:
        """Keyed by parameter name if sharded, else one state an optimizer; empty except on rank 0."""
        if self._is_sharded:  # all workers take part, and torch drops the others' copies
            states = get_optimizer_state_dict(self.model, list(self.optimizers), options=_FULL_STATE)
            # torch copies from a GPU; on a CPU the next step would change what it returns.
            return distributed.copy_to_cpu(states) if self.accelerator.device.type == "cpu" else states
        if not self.accelerator.is_main_process:
            return []
        return [distributed.copy_to_cpu(optimizer.state_dict()) for optimizer in self.optimizers]


def open_accelerator(section: TrainConfig, world_size: int) -> Accelerator:
    """The worker's device and process group, which must have `world_size` processes.

    On a GPU, float32 matrix products are rounded to TF32: those of the loss, and with `fp32` the towers'.
    """
    ddp = DistributedDataParallelKwargs(
        gradient_as_bucket_view=True,  # no second copy of the gradients
        broadcast_buffers=False,  # they never change
    )
    # On a CPU a plain Accelerator() trains every worker alone, without a warning.
    accelerator = Accelerator(cpu=not section.use_gpu, mixed_precision="no", kwargs_handlers=[ddp])
    assert accelerator.num_processes == world_size, f"{accelerator.num_processes=} in a group of {world_size}"
    if section.use_gpu:
        torch.set_float32_matmul_precision("high")
    return accelerator


def make_train_state(
    start_uri: str,
    image: ImagePreprocessing,
    section: TrainConfig,
    num_steps: int,
    accelerator: Accelerator,
    *,
    teacher_dimensions: int | None = None,
) -> TrainState:
    """The start on this worker's device, with optimisers and schedules for `num_steps`.

    `teacher_dimensions`: length of the teacher's vectors, with `train.teacher`.
    Raises: InputError if the model lacks a layer that the configuration freezes or updates, or if LoRA is
    configured and peft is not installed.
    """
    with storage.readable_folder(start_uri) as folder:
        model = siglip.load_model(folder)
        start = None
        if section.method == "distil":
            frozen = siglip.load_model(folder).to(accelerator.device).requires_grad_(False)
            start = DualEncoder(frozen, image, section.precision)
    if section.lora is not None:
        lora.add_lora(model, section.lora)
    optim.freeze(model, section)
    dual_encoder = DualEncoder(
        model.to(accelerator.device), image, section.precision, patch_dropout=section.patch_dropout
    )
    if section.activation_checkpointing != "none":
        dual_encoder.checkpoint_activations(section.activation_checkpointing)
    if section.compile:
        dual_encoder.compile_layers() if section.parallel == "fsdp" else dual_encoder.compile_towers()
    towers = distributed.distribute(dual_encoder, section, accelerator)
    optimizers, head = optim.make_optimizers(model, section), None
    if section.teacher is not None and teacher_dimensions is not None:
        dimensions = siglip.dimensions_of(model.config)
        head = torch.nn.utils.skip_init(torch.nn.Linear, dimensions, teacher_dimensions, bias=False)
        # The same values on every worker; the random numbers of the process stay as they are.
        generator = torch.Generator().manual_seed(0)
        torch.nn.init.normal_(head.weight, std=dimensions**-0.5, generator=generator)
        optimizers.insert(0, optim.make_head_optimizer(head.to(accelerator.device), section))
    factor = optim.learning_rate_factor(num_steps, section.warmup_fraction)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    ema = optim.Ema(model.named_parameters(), section.ema_decay) if section.ema_decay is not None else None
    return TrainState(accelerator, model, towers, optimizers, schedules, start, ema, section.lora, head)
