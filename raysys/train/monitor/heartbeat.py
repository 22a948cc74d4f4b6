"""Heartbeats: about once a second a worker sends its step and phase to the run's `RunCoordinator`."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import ray.util
import torch
from accelerate import Accelerator

from raysys.train.monitor.stall import (
    DATA_READY,
    ENDED,
    FORWARD,
    LOSS_AND_BACKWARD,
    SAVING,
    STARTING,
    VALIDATING,
    WAITING_FOR_DATA,
    WorkerStatus,
)

_INTERVAL_S = 1.0


class Heartbeat:
    """Sends the heartbeats of one worker from a thread while the block runs.

    `coordinator` is the handle of the run's `RunCoordinator` actor. The training loop sets the phase.
    """

    def __init__(self, coordinator: Any, accelerator: Accelerator) -> None:
        self._coordinator, self._accelerator = coordinator, accelerator
        self._node = ray.util.get_node_ip_address()
        self._step, self._first_step = 0, 0
        self._phase, self._num_phase_changes = STARTING, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase = ENDED
        self._ended.set()
        self._thread.join()

    def restored(self, step: int) -> None:
        """The worker has loaded the state after `step` steps."""
        self._first_step = step
        self.waiting_for_data(step)

    def waiting_for_data(self, step: int) -> None:
        """The worker has completed `step` steps and waits for its next batch."""
        self._step = step
        self._set_phase(WAITING_FOR_DATA)

    def data_ready(self) -> None:
        """The worker has its batch; other workers may still wait for theirs."""
        if self._phase != DATA_READY:
            self._set_phase(DATA_READY)

    def watch_towers(self, towers: torch.nn.Module) -> None:
        """Set the phase by hooks before and after each forward pass of the towers."""
        towers.register_forward_pre_hook(lambda *_: self._set_step_phase(FORWARD))
        towers.register_forward_hook(lambda *_: self._set_step_phase(LOSS_AND_BACKWARD))

    def validating(self) -> None:
        """The worker measures a model, until another phase begins; each forward pass counts as progress."""
        self._set_phase(VALIDATING)

    def saving(self) -> None:
        """The worker saves a checkpoint."""
        self._set_phase(SAVING)

    def _set_step_phase(self, phase: str) -> None:
        self._set_phase(VALIDATING if self._phase == VALIDATING else phase)

    def _set_phase(self, phase: str) -> None:
        self._phase, self._num_phase_changes = phase, self._num_phase_changes + 1

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            self._send()
        self._send()

    def _send(self) -> None:
        self._coordinator.heartbeat.remote(
            WorkerStatus(
                rank=self._accelerator.process_index,
                world_size=self._accelerator.num_processes,
                node=self._node,
                step=self._step,
                phase=self._phase,
                num_phase_changes=self._num_phase_changes,
                is_warm=self._step > self._first_step,
            )
        )
