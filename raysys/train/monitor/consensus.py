"""A worker's eye on what happens around it: somebody who wants the run to stop, a node that will go.

Decisions are rank 0's, and a sum over all workers makes them everybody's at the same step.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import ray
import ray.train
import torch
from accelerate import Accelerator

_LOOK_EVERY_S = 5.0  # for nodes that will go: a call of all ranks, of about 4 ms


class StepDecision(NamedTuple):
    """What all workers do next."""

    is_ready: bool
    """Each of them has its batch."""
    stop: bool
    save: bool
    enough: bool
    """The run ends here as if this had been its last step."""

    @property
    def ends(self) -> bool:
        """Whether there is no next step."""
        return self.stop or self.enough


class StepConsensus:
    """One worker's; `coordinator` is the handle of the run's `RunCoordinator` actor."""

    def __init__(self, coordinator: Any, accelerator: Accelerator) -> None:
        self._coordinator, self._accelerator = coordinator, accelerator
        self._stop_wanted = (
            coordinator.wait_for_stop_request.remote() if accelerator.is_main_process else None
        )
        self._looked_at = time.monotonic()
        self._going: set[str] = set()

    def agree(self, *, has_batch: bool, save: bool, enough: bool) -> StepDecision:
        """Step if all have a batch; stop if somebody asked for it; save, or end early, if rank 0 says so or a
        node is newly said to go.

        A call that all workers make, also without a batch: Ray gives decoders on a node that will go no more
        work, and if all are there, data come only once it is gone.
        """
        look = time.monotonic() - self._looked_at > _LOOK_EVERY_S
        wishes = torch.tensor([self._is_stop_wanted(), save, enough, look], dtype=torch.float32)
        wishes *= self._accelerator.is_main_process
        said = torch.cat([wishes, torch.tensor([float(has_batch)])]).to(self._accelerator.device)
        *wanted, num_ready = self._accelerator.reduce(said).tolist()
        is_warned = wanted[3] > 0 and self._is_newly_warned()
        return StepDecision(
            is_ready=num_ready == self._accelerator.num_processes,
            stop=wanted[0] > 0,
            save=wanted[1] > 0 or is_warned,
            enough=wanted[2] > 0,
        )

    def _is_stop_wanted(self) -> bool:
        if self._stop_wanted is None or not ray.wait([self._stop_wanted], timeout=0)[0]:
            return False
        return bool(ray.get(self._stop_wanted))

    def _is_newly_warned(self) -> bool:
        self._looked_at = time.monotonic()
        info = ray.train.get_preemption_info()
        new = set(info.preempted_node_ids if info else ()) - self._going
        self._going |= new
        if info and new and self._accelerator.is_main_process:
            ranks = ", ".join(map(str, info.preempted_ranks))
            self._coordinator.log.remote(
                f"a node will be taken away, with rank {ranks}; a checkpoint is taken now"
            )
        return bool(new)
