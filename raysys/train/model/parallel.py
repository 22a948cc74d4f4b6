"""Weights over several workers: a copy on each (DDP), or a part on each (FSDP2), and whole tensors of both.

accelerate does the former. Its FSDP2 is for accelerators alone, so `fully_shard` is called here: sharded
training is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from raysys.config.schema import TrainConfig
from raysys.train.model.dual_encoder import DualEncoder


def distribute(towers: DualEncoder, section: TrainConfig, accelerator: Accelerator) -> torch.nn.Module:
    """The towers as all workers train them together; optimisers are made of their parameters afterwards."""
    if section.parallel == "fsdp":
        return shard(towers, section.precision)
    wrapped: torch.nn.Module = accelerator.prepare(towers)
    return wrapped


def shard(towers: DualEncoder, precision: str) -> torch.nn.Module:
    """Every layer, and the rest, cut over all workers; computed in bfloat16 if `precision` is `bf16`."""
    policy = MixedPrecisionPolicy()
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in towers.layers():
        fully_shard(layer, mp_policy=policy)
    # Numbers that stay whole: one cannot be cut, and bfloat16 would round it.
    fully_shard(towers, mp_policy=policy, ignored_params=set(towers.of_loss()))
    return towers


@contextmanager
def no_sync(towers: torch.nn.Module) -> Iterator[None]:
    """No exchange of gradients between workers by a backward pass inside."""
    if isinstance(towers, FSDPModule):
        towers.set_requires_gradient_sync(False)
        yield
        towers.set_requires_gradient_sync(True)
    elif isinstance(towers, DistributedDataParallel):
        with towers.no_sync():
            yield
    else:
        yield


def average_whole_gradients(towers: torch.nn.Module) -> None:
    """What FSDP leaves to its caller: gradients of the parameters that are not cut."""
    if isinstance(towers, FSDPModule):
        for parameter in towers.parameters():
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


@torch.no_grad()
def clip_gradients(parameters: Iterable[Parameter], max_norm: float) -> Tensor:
    """Cut the norm of all gradients to `max_norm`, and return what it was; a call that all workers make."""
    felt = [parameter for parameter in parameters if parameter.grad is not None]
    # torch adds up norms of cut tensors, or of whole ones, but not of both.
    cut, whole = ([p for p in felt if isinstance(p, DTensor) is is_cut] for is_cut in (True, False))
    kinds = [kind for kind in (cut, whole) if kind]
    norms = [torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
    norm: Tensor = torch.stack([_full(part) for part in norms]).norm()
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm


def whole_on_cpu(tensors: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Copies on the CPU of tensors that may be cut; where `keep` is not, this worker only gives its parts."""
    whole = {}
    for name, tensor in tensors.items():
        full = _full(tensor.detach())
        if keep:
            whole[name] = full.to("cpu", copy=True)
    return whole


@torch.no_grad()
def load_full_tensors(tensors: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Put whole saved values into tensors that may be cut; every worker has them all.

    Raises: KeyError if one was not saved.
    """
    for name, tensor in tensors.items():
        value: Tensor = saved[name]
        if isinstance(tensor, DTensor):
            value = value.to(tensor.device)
            value = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.copy_(value)


def copied_to_cpu(state: Any) -> Any:
    """A state dict, nested as it is, with copies of its tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied_to_cpu(value) for key, value in state.items()}
    return [copied_to_cpu(value) for value in state] if isinstance(state, list) else state


def local_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this worker holds of each tensor, as views."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
