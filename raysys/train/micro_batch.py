"""The size of a run's micro-batches: as configured, or the largest that fits on the workers' devices.

It is measured once. The run's folder keeps it, or half of it after an out-of-memory error, for later starts
with the same device, model, settings and software.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from torch.distributed.fsdp import FSDPModule

from raysys import storage
from raysys.columns import PATCH_SEEDS, PIXELS, TOKENS
from raysys.config.schema import TrainConfig
from raysys.encoder.siglip import dimensions_of
from raysys.errors import OutOfMemory, out_of_memory_reason
from raysys.stream.order import share_rows
from raysys.terminal import as_size
from raysys.tracking.logs import log
from raysys.train.job import TrainJob
from raysys.train.memory import DeviceMemory, batches_bytes, largest_micro_batch, loss_bytes, memory_advice
from raysys.train.model import TrainState
from raysys.train.model.optim import allocate_state
from raysys.train.step import run_micro_batch

_FILE = "micro_batch.json"
_SETTINGS = (
    "micro_batch_size",
    "precision",
    "patch_dropout",
    "parallel",
    "compile",
    "activation_checkpointing",
    "loss_tile_rows",
)


class MicroBatch:
    """One instance a worker and attempt; `size` is known once `fit` has returned."""

    def __init__(self, job: TrainJob, workers: int) -> None:
        self._job, self._workers = job, workers
        self._share = share_rows(job.section.batch_size, workers, job.rows_per_block)
        self._uri = storage.join(job.run_uri, _FILE)
        self.size: int | None = None

    def fit(self, state: TrainState, memory: DeviceMemory | None = None) -> TrainConfig:
        """The job's section with the size as a number; logs a size that is not the configured one.

        A collective call, which leaves the state, its gradients and the random numbers as they were. `memory`
        is that of the worker's device.
        Raises: OutOfMemory if a single pair does not fit.
        """
        configured, line = self._job.section.micro_batch_size, None
        # The ranks may have different devices, and read the folder at different times.
        if recorded := int(_least(state.accelerator, self._recorded()[0])):
            self.size, line = recorded, f"micro_batch_size {recorded}, as found by an earlier start"
        elif configured == "auto" and (memory or self._job.section.use_gpu):
            self.size, line = self._measure(state, memory or DeviceMemory(state.accelerator.device))
            if state.accelerator.is_main_process:
                self._record(self.size)
        else:
            self.size = min(configured, self._share) if isinstance(configured, int) else self._share
        if line and state.accelerator.is_main_process:
            log.info("    train  %s", line)
        return self._job.section.model_copy(update={"micro_batch_size": self.size})

    def halve(self) -> int:
        """Keep half of the size for the next attempts, and return it."""
        assert self.size is not None
        half = max(1, self.size // 2)
        self._record(half)
        return half

    def _measure(self, state: TrainState, memory: DeviceMemory) -> tuple[int, str]:
        for optimizer in state.optimizers:
            allocate_state(optimizer)
        section, device = self._job.section, state.accelerator.device
        reserved_bytes = batches_bytes(self._share, self._job.image.size_px, memory.total_bytes) + loss_bytes(
            section, rows=self._share, workers=self._workers, dimensions=dimensions_of(state.model.config)
        )
        free: dict[int, float] = {}

        def free_bytes(size: int) -> float:
            pairs = self._random_pairs(size, state)
            free[size] = memory.free_bytes(lambda: self._run(state, pairs)) - reserved_bytes
            return _least(state.accelerator, free[size])

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            size = largest_micro_batch(self._share, free_bytes)
        if section.compile:
            torch._dynamo.reset()  # the sizes that were tried would count towards its limit of compilations
        total = as_size(memory.total_bytes)
        if size is None:
            raise OutOfMemory(
                f"train: {self._device_name()} with {total} has too little memory for one pair at "
                f"a time; {memory_advice(section, self._workers, 1)}"
            )
        return size, (
            f"micro_batch_size {size} of {self._share} pairs a worker: with the safety margin it leaves "
            f"{as_size(int(free[size]))} of {total} (measured on {self._device_name()})"
        )

    def _run(self, state: TrainState, pairs: dict[str, torch.Tensor]) -> None:
        try:
            for _ in range(2):  # in a step all but the first micro-batch find gradients in memory
                run_micro_batch(state.towers, pairs)
        except RuntimeError as error:
            # The other ranks wait for this one's weights, so that no smaller size can be tried.
            if isinstance(state.towers, FSDPModule) and (reason := out_of_memory_reason(error)):
                advice = memory_advice(self._job.section, self._workers, len(pairs[PIXELS]))
                raise OutOfMemory(f"train: measuring train.micro_batch_size: {reason}; {advice}") from error
            raise
        finally:
            state.towers.zero_grad()

    def _random_pairs(self, size: int, state: TrainState) -> dict[str, torch.Tensor]:
        """Captions are distinct: the text tower embeds equal ones once."""
        side_px, device = self._job.image.size_px, state.accelerator.device
        captions = (size, 1 + len(self._job.section.caption_weights), self._job.text.max_length)
        pairs = {
            PIXELS: torch.zeros(size, side_px, side_px, 3, dtype=torch.uint8, device=device),
            TOKENS: torch.randint(state.model.config.text_config.vocab_size, captions, device=device),
        }
        if self._job.section.patch_dropout:
            pairs[PATCH_SEEDS] = torch.arange(size, device=device)
        return pairs

    def _circumstances(self) -> dict[str, Any]:
        """Everything that a size depends on."""
        return {
            "model": self._job.start_uri,
            "device": self._device_name(),
            "workers": self._workers,
            "share": self._share,
            **self._job.section.model_dump(include=set(_SETTINGS)),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def _device_name(self) -> str:
        return torch.cuda.get_device_name() if self._job.section.use_gpu else "cpu"

    def _recorded(self) -> tuple[int, list[dict[str, Any]]]:
        """The size that the run's folder has for these circumstances (0: none), and its other records."""
        records, now = [], self._circumstances()
        if storage.exists(self._uri):
            records = json.loads(storage.read_bytes(self._uri))
        sizes = [record["size"] for record in records if record == {**record, **now}]
        return (sizes[0] if sizes else 0), [record for record in records if record != {**record, **now}]

    def _record(self, size: int) -> None:
        _, others = self._recorded()
        content = [*others, {"size": size, **self._circumstances()}]
        storage.write_bytes(self._uri, json.dumps(content, indent=2).encode())


def _least(accelerator: Accelerator, value: float) -> float:
    """The lowest value of all ranks. A collective call."""
    values = accelerator.gather(torch.tensor([value], dtype=torch.float64, device=accelerator.device))
    return float(values.min())
