"""What all workers do next: rank 0 decides, and a sum over the workers gives all the same decision.

Reasons to act are a stop request, a due checkpoint, and a node that will be preempted.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import ray
import ray.train
from accelerate import Accelerator

from raysys.train.monitor.control_group import ControlGroup

_PREEMPTION_CHECK_INTERVAL_S = 5.0  # the check is a call of all ranks and takes about 4 ms


class StepDecision(NamedTuple):
    """What all workers do next."""

    is_ready: bool
    """Every worker has its batch."""
    stop: bool
    save: bool


class StepConsensus:
    """One instance a worker; `coordinator` is the handle of the run's `RunCoordinator` actor."""

    def __init__(self, coordinator: Any, accelerator: Accelerator, group: ControlGroup) -> None:
        self._coordinator, self._accelerator, self.group = coordinator, accelerator, group
        self._stop_request = (
            coordinator.wait_for_stop_request.remote() if accelerator.is_main_process else None
        )
        self._preemption_checked_at = time.monotonic()
        self._preempted_nodes: set[str] = set()

    def decide(self, *, has_batch: bool, save: bool) -> StepDecision:
        """Step if all workers have a batch; stop on a request; save if rank 0 passes True.

        A node that is newly announced as preempted causes a save, too. All workers make this call, even
        without a batch: Ray schedules no decoders on a node that is being preempted, and if all decoders ran
        there, data arrive only after it has ended.
        """
        check_preemption = time.monotonic() - self._preemption_checked_at > _PREEMPTION_CHECK_INTERVAL_S
        flags = [self._is_stop_requested(), save, check_preemption]
        flags = [flag and self._accelerator.is_main_process for flag in flags]
        stop, save_now, check, num_ready = self.group.sum([*flags, has_batch])
        is_preempted = check > 0 and self._has_new_preemption()
        return StepDecision(
            is_ready=num_ready == self._accelerator.num_processes,
            stop=stop > 0,
            save=save_now > 0 or is_preempted,
        )

    def should_stop(self) -> bool:
        """Whether a stop was requested, the same on all workers. A collective call."""
        return self.group.sum([self._is_stop_requested()])[0] > 0

    def _is_stop_requested(self) -> bool:
        if self._stop_request is None or not ray.wait([self._stop_request], timeout=0)[0]:
            return False
        return bool(ray.get(self._stop_request))

    def _has_new_preemption(self) -> bool:
        self._preemption_checked_at = time.monotonic()
        info = ray.train.get_preemption_info()
        new = set(info.preempted_node_ids if info else ()) - self._preempted_nodes
        self._preempted_nodes |= new
        if info and new and self._accelerator.is_main_process:
            ranks = ", ".join(map(str, info.preempted_ranks))
            self._coordinator.log.remote(
                f"a node with rank {ranks} will be preempted; a checkpoint is saved now"
            )
        return bool(new)
