"""Training state on disk: all that a restart needs to continue as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysys import storage
from raysys.errors import DamagedData

STATE = "state.pt"
_SNAPSHOT = "checkpoint_manager_snapshot.json"


def checkpoint_name(step: int) -> str:
    """The directory of the checkpoint after `step` steps."""
    return f"checkpoint_{step:08d}"


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training."""

    model: torch.nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    schedules: Sequence[torch.optim.lr_scheduler.LRScheduler]

    def save(self, folder: Path, step: int) -> None:
        """Write the state after `step` steps."""
        state = {
            "step": step,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }
        torch.save(state, folder / STATE)

    def load(self, folder: Path) -> int:
        """Take over a saved state and return its step."""
        state = _read(folder)
        self.model.load_state_dict(state["model"])
        for part, saved in zip(self.optimizers, state["optimizers"], strict=True):
            part.load_state_dict(saved)
        for schedule, saved in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)
        return int(state["step"])


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Take over the model's weights from a saved state."""
    model.load_state_dict(_read(folder)["model"])


def _read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def newest_step(run_uri: str) -> int:
    """The step after which the run's last registered checkpoint was taken; 0 if there is none.

    Ray Train registers a checkpoint in its snapshot once it is complete; a directory that is not in there
    may be half of one.
    """
    path = storage.join(run_uri, _SNAPSHOT)
    if not storage.exists(path):
        return 0
    try:
        results = json.loads(storage.read_bytes(path))["checkpoint_results"]
    except (ValueError, KeyError) as error:
        raise DamagedData(
            f"{path}: not readable ({error}); remove {run_uri} to train from the start"
        ) from error
    names = [result["checkpoint_dir_name"] for result in results]
    return max((int(name.rpartition("_")[2]) for name in names), default=0)
