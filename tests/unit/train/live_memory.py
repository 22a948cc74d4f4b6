"""The memory of tensors on a CPU, in place of a GPU's allocator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raysys.train.memory import DeviceMemory


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations of the block made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.peak = 0
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if is_tensor(one)}
        for one in filter(is_tensor, tree_leaves(result)):
            storage = one.untyped_storage()
            if storage._cdata not in given:
                self._sizes[StorageWeakRef(storage)] = storage.nbytes()
        self.peak = max(self.peak, self.now())
        return result

    def now(self) -> int:
        """Bytes that are alive at this moment."""
        self._sizes = {storage: size for storage, size in self._sizes.items() if not storage.expired()}
        return sum(self._sizes.values())


class CpuMemory(DeviceMemory):
    """A device of `total_bytes` for what a block allocates; `peaks` are those of the blocks."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.peaks: list[int] = []

    def free_bytes(self, work: Callable[[], None]) -> float:
        with LiveBytes() as live:
            work()
        self.peaks.append(live.peak)
        return self.total_bytes - live.peak if live.peak <= self.total_bytes else -math.inf


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
