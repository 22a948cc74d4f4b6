"""Heartbeats: about once a second a worker sends its step and phase to the run's `RunCoordinator`."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import ray.util
import torch
from accelerate import Accelerator

from raysys.train.monitor.stall import ENDED, FORWARD, LOSS_AND_BACKWARD, STARTING, VALIDATING, WorkerStatus

_INTERVAL_S = 1.0


class Heartbeat:
    """Sends the heartbeats of one worker from a thread while the block runs.

    `coordinator` is the handle of the run's `RunCoordinator` actor. The training loop sets the phase.
    """

    def __init__(self, coordinator: Any, accelerator: Accelerator) -> None:
        self._coordinator = coordinator
        self._status = WorkerStatus(
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            node=ray.util.get_node_ip_address(),
            step=0,
            phase=STARTING,
            num_phase_changes=0,
            is_warm=False,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enter(ENDED)
        self._ended.set()
        self._thread.join()

    def enter(self, phase: str, step: int | None = None) -> None:
        """The worker enters a phase of `stall.py`, after `step` steps if their number has changed.

        The same phase again is no change, except `VALIDATING`: each forward pass in it counts as progress.
        """
        last = self._status
        if last.phase == phase != VALIDATING:
            return
        step = last.step if step is None else step
        has_stepped = step > last.step and last.phase != STARTING  # the first step is that of the restart
        self._status = dataclasses.replace(
            last,
            step=step,
            phase=phase,
            num_phase_changes=last.num_phase_changes + 1,
            is_warm=last.is_warm or has_stepped,
        )

    def watch_towers(self, towers: torch.nn.Module) -> None:
        """Set the phase before and after each forward pass of the towers; a validation remains one."""

        def enter(phase: str) -> None:
            self.enter(VALIDATING if self._status.phase == VALIDATING else phase)

        towers.register_forward_pre_hook(lambda *_: enter(FORWARD))
        towers.register_forward_hook(lambda *_: enter(LOSS_AND_BACKWARD))

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._ended.wait(_INTERVAL_S)
            self._coordinator.heartbeat.remote(self._status)
