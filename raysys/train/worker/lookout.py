"""A worker's eye on what happens around it: somebody who wants the run to stop, a node that will go.

Decisions are rank 0's, and a sum over all workers makes them everybody's at the same step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ray
import torch
from accelerate import Accelerator


class Agreed(NamedTuple):
    """What all workers do after this step."""

    stop: bool
    save: bool
    enough: bool
    """The run ends here as if this had been its last step."""


class Lookout:
    """One worker's; `watch` is the handle of the run's `Watch` actor."""

    def __init__(self, watch: Any, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._stop_wanted = watch.stop_wanted.remote() if accelerator.is_main_process else None

    def agree(self, *, save: bool, enough: bool) -> Agreed:
        """Stop if somebody asked for it; save, or end early, if rank 0 says so; all workers call it."""
        stop = self._stop_wanted is not None and bool(ray.wait([self._stop_wanted], timeout=0)[0])
        is_main = self._accelerator.is_main_process
        wishes = torch.tensor([stop, save and is_main, enough and is_main], dtype=torch.float32)
        wanted = self._accelerator.reduce(wishes.to(self._accelerator.device)).tolist()
        return Agreed(stop=wanted[0] > 0, save=wanted[1] > 0, enough=wanted[2] > 0)
