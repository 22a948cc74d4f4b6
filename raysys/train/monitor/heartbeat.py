"""A worker's signs of life: where it is, told to the run's `RunCoordinator` about once a second."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import ray.util
import torch
from accelerate import Accelerator

from raysys.train.monitor.stall import ENDED, EXCHANGING, IN_TOWERS, READY, SAVING, WAITING, WorkerStatus

_EVERY_S = 1.0


class Heartbeat:
    """One worker's; beats while its block runs. What it tells of is set by `waits`, `follow` and the rest."""

    def __init__(self, coordinator: Any, accelerator: Accelerator, step: int) -> None:
        self._coordinator, self._accelerator, self._node = (
            coordinator,
            accelerator,
            ray.util.get_node_ip_address(),
        )
        self._step, self._phase, self._moves, self._first_step = step, WAITING, 0, step
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase = ENDED
        self._ended.set()
        self._beating.join()

    def waits(self, step: int) -> None:
        """The worker has taken `step` steps and waits for the data of the next one."""
        self._step = step
        self._move(WAITING)

    def is_ready(self) -> None:
        """The data are here; others may still wait for theirs."""
        if self._phase != READY:
            self._move(READY)

    def follow(self, towers: torch.nn.Module) -> None:
        """Know when the towers are at work; what comes after them is exchange between the ranks."""
        towers.register_forward_pre_hook(lambda *_: self._move(IN_TOWERS))
        towers.register_forward_hook(lambda *_: self._move(EXCHANGING))

    def saves(self) -> None:
        """A checkpoint is being taken."""
        self._move(SAVING)

    def _move(self, phase: str) -> None:
        self._phase, self._moves = phase, self._moves + 1

    def _beat(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._tell()
        self._tell()

    def _tell(self) -> None:
        self._coordinator.heartbeat.remote(
            WorkerStatus(
                rank=self._accelerator.process_index,
                world_size=self._accelerator.num_processes,
                node=self._node,
                step=self._step,
                phase=self._phase,
                moves=self._moves,
                is_warm=self._step > self._first_step,
            )
        )
