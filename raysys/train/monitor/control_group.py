"""What workers tell each other about a run: small numbers and objects, from CPU to CPU.

It is a gloo group on GPUs, too. NCCL would queue these calls behind the step, so that the host would wait for
the GPU, and then the GPU for the host.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from raysys.train.loss import world_size

Value = TypeVar("Value")


class ControlGroup:
    """One instance a worker; every call is a collective one. Calls fail after `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        timeout = datetime.timedelta(seconds=timeout_s)
        self._group = dist.new_group(backend="gloo", timeout=timeout) if world_size() > 1 else None

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all workers."""
        sums = torch.tensor(values, dtype=torch.float64)
        if self._group is not None:
            dist.all_reduce(sums, group=self._group)
        return list(sums.tolist())

    def from_main(self, value: Any) -> Any:
        """The value of rank 0, on all workers; the others pass None."""
        return self.gather(value)[0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all workers, in order of rank."""
        gathered = [value] * world_size()
        if self._group is not None:
            dist.all_gather_object(gathered, value, group=self._group)
        return gathered
