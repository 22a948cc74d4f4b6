"""The model on several workers: a full copy on each (DDP), or one shard on each (FSDP2).

accelerate wraps a model for DDP. Its FSDP2 requires a GPU, so this module calls `fully_shard` itself: sharded
training is tested without one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import recursively_apply
from jaxtyping import Float
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from raysys.config.schema import TrainConfig
from raysys.train.model.dual_encoder import DualEncoder


def distribute(towers: DualEncoder, section: TrainConfig, accelerator: Accelerator) -> torch.nn.Module:
    """The towers wrapped by `train.parallel`. Make optimisers afterwards, from the new parameters."""
    if section.parallel == "fsdp":
        return shard(towers)
    with warnings.catch_warnings():
        # torch 2.13 renames this argument of DDP; accelerate only knows the old name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped: torch.nn.Module = accelerator.prepare(towers)
    return wrapped


def shard(towers: DualEncoder) -> torch.nn.Module:
    """Shard every layer, and the rest, over all workers. Weights are gathered, and cast, in float32."""
    # No `MixedPrecisionPolicy`: it would also round layer norms and the residuals, which autocast does not.
    for layer in towers.layers():
        fully_shard(layer)
    # Scale and bias stay unsharded: a single number cannot be sharded.
    fully_shard(towers, ignored_params=set(towers.loss_parameters()))
    return towers


@contextmanager
def no_sync(towers: torch.nn.Module) -> Iterator[None]:
    """Backward passes inside do not exchange gradients between workers."""
    if isinstance(towers, FSDPModule):
        towers.set_requires_gradient_sync(False)
        yield
        towers.set_requires_gradient_sync(True)
    elif isinstance(towers, DistributedDataParallel):
        with towers.no_sync():
            yield
    else:
        yield


def all_reduce_unsharded_grads(towers: torch.nn.Module) -> None:
    """Average the gradients of unsharded parameters over the workers; FSDP leaves this to its caller."""
    if isinstance(towers, FSDPModule):
        for parameter in towers.parameters():
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> Float[Tensor, ""]:
    """Clip the norm of all gradients to `max_norm` and return the norm before. A collective call."""
    with_grad = [parameter for parameter in parameters if parameter.grad is not None]
    # torch adds up norms of sharded tensors, or of unsharded ones, but not of both.
    sharded, unsharded = (
        [parameter for parameter in with_grad if isinstance(parameter, DTensor) is is_sharded]
        for is_sharded in (True, False)
    )
    kinds = [kind for kind in (sharded, unsharded) if kind]
    norms = [torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
    total_norm: Tensor = torch.stack([full_tensor(norm) for norm in norms]).norm()
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, max_norm, total_norm)
    return total_norm


def full_tensors_on_cpu(tensors: dict[str, Tensor], *, is_main: bool) -> dict[str, Tensor]:
    """Full copies on the CPU of tensors that may be sharded; empty where not `is_main`. A collective call."""
    copies = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor.detach())
        if is_main:
            copies[name] = full.to("cpu", copy=True)
    return copies


@torch.no_grad()
def load_full_tensors(tensors: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Copy full saved tensors into tensors that may be sharded; every worker passes all of `saved`.

    Raises: KeyError if one was not saved.
    """
    for name, tensor in tensors.items():
        value: Tensor = saved[name]
        if isinstance(tensor, DTensor):
            value = value.to(tensor.device)
            value = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.copy_(value)


def copy_to_cpu(state: Any) -> Any:
    """A nested state dict with copies of its tensors on the CPU."""
    return recursively_apply(lambda tensor: tensor.detach().to("cpu", copy=True), state)


def local_shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This worker's part of each tensor, as views."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def full_tensor(tensor: Tensor) -> Tensor:
    """The complete tensor where it is sharded. A collective call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
