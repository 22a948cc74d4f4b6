"""Training state on disk: all that a restart needs to continue as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysys import storage
from raysys.errors import DamagedData
from raysys.train.engine import Engine

STATE = "state.pt"
SCORE = "score"  # the figure of a checkpoint that decides which is the best
_SNAPSHOT = "checkpoint_manager_snapshot.json"


def checkpoint_name(step: int) -> str:
    """The directory of the checkpoint after `step` steps."""
    return f"checkpoint_{step:08d}"


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training."""

    engine: Engine

    def save(self, folder: Path, step: int) -> None:
        """Write the state after `step` steps."""
        state = {"step": step, **self.engine.state_dict()}
        torch.save(state, folder / STATE)

    def load(self, folder: Path) -> int:
        """Take over a saved state and return its step."""
        state = _read(folder)
        self.engine.load_state_dict(state)
        return int(state["step"])


def load_weights(model: torch.nn.Module, folder: Path) -> int:
    """Take over the model's weights from a saved state, and return its step."""
    state = _read(folder)
    model.load_state_dict(state.get("weights", state["model"]))
    return int(state["step"])


def _read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def newest_step(run_uri: str) -> int:
    """The step after which the run's last registered checkpoint was taken; 0 if there is none."""
    return max((step for step, _ in _registered(run_uri)), default=0)


def best_step(run_uri: str) -> int:
    """The step of the checkpoint with the highest score; the newest one if none was measured."""
    scored = [(figures[SCORE], step) for step, figures in _registered(run_uri) if SCORE in figures]
    return max(scored)[1] if scored else newest_step(run_uri)


def _registered(run_uri: str) -> list[tuple[int, dict[str, float]]]:
    """Step and figures of each complete checkpoint.

    Ray Train registers a checkpoint in its snapshot once it is complete; a directory that is not in there
    may be half of one.
    """
    path = storage.join(run_uri, _SNAPSHOT)
    if not storage.exists(path):
        return []
    try:
        results = json.loads(storage.read_bytes(path))["checkpoint_results"]
        return [(int(one["checkpoint_dir_name"].rpartition("_")[2]), one["metrics"]) for one in results]
    except (ValueError, KeyError) as error:
        raise DamagedData(
            f"{path}: not readable ({error}); remove {run_uri} to train from the start"
        ) from error
