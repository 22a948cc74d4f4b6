"""Training state on disk: all that a restart needs to continue as if nothing had happened.

A checkpoint is a folder with `state.pt` and, written last, `checkpoint.json`, which says what the state is
of and what its file must hash to. It counts once Ray Train has registered it: any other folder is what an
attempt that was cut off left behind (see `registry.py`). No generator's state is in it, see `chance.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from raysys import storage
from raysys.artifacts import FileEntry, code_version
from raysys.errors import DamagedData, InputError
from raysys.train.model import TrainState

STATE = "state.pt"
MANIFEST = "checkpoint.json"
_FORMAT: Literal[2] = 2  # of checkpoint.json and the state beside it
_PREFIX = "checkpoint_"


class CheckpointManifest(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = _FORMAT
    uri: str  # where it was written to
    spec_hash: str  # of the run
    step: int
    stream_position: int  # samples of the training sequence that went into it
    world_size: int
    files: dict[str, FileEntry]
    code_version: str


def checkpoint_name(step: int) -> str:
    """The directory of the checkpoint after `step` steps."""
    return f"{_PREFIX}{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """The step of a directory that is named as a checkpoint is; None of any other."""
    digits = name.removeprefix(_PREFIX)
    return int(digits) if name.startswith(_PREFIX) and digits.isdecimal() else None


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training."""

    engine: TrainState

    def snapshot(self, step: int) -> dict[str, Any] | None:
        """A copy in host memory of the state after `step` steps, which training no longer touches.

        A call that all workers make; rank 0 alone gets the copy.
        """
        state = self.engine.state_dict()
        return {"step": step, **state} if self.engine.accelerator.is_main_process else None

    def load(self, folder: Path) -> int:
        """Take over a saved state and return its step.

        Raises: DamagedData if the files are not those that were written.
        """
        state = _read(folder)
        self.engine.load_state_dict(state)
        return int(state["step"])


def write_checkpoint(
    state: dict[str, Any], uri: str, *, spec_hash: str, stream_position: int, world_size: int
) -> None:
    """Make the folder of a checkpoint from a snapshot; what stood there is removed first."""
    storage.delete(uri)
    with storage.writable_file(storage.join(uri, STATE)) as path:
        with path.open("wb") as stream:  # given a path, torch does not tell a full disk from other trouble
            torch.save(state, stream)
        num_bytes, sha256 = storage.sha256_of(str(path))
    manifest = CheckpointManifest(
        uri=uri,
        spec_hash=spec_hash,
        step=state["step"],
        stream_position=stream_position,
        world_size=world_size,
        files={STATE: FileEntry(bytes=num_bytes, sha256=sha256)},
        code_version=code_version(),
    )
    storage.write_bytes(storage.join(uri, MANIFEST), manifest.model_dump_json(indent=2).encode())


def load_weights(model: torch.nn.Module, folder: Path) -> int:
    """Take over the weights that are measured and exported from a saved state, and return its step.

    Raises: DamagedData if the files are not those that were written.
    """
    state = _read(folder)
    model.load_state_dict(state.get("weights", state["model"]))
    return int(state["step"])


def _read(folder: Path) -> dict[str, Any]:
    _require_whole(folder)
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def _require_whole(folder: Path) -> None:
    manifest = _read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        found = storage.sha256_of(str(path)) if path.is_file() else (0, "none")
        if found != (entry.bytes, entry.sha256):
            run_uri = manifest.uri.rpartition("/")[0]
            raise DamagedData(
                f"{manifest.uri}/{name}: {entry.bytes} bytes with sha256 {entry.sha256[:12]} were written, "
                f"found {found[0]} with {found[1][:12]}; put the file back, "
                f"or remove {run_uri} to train from the start"
            )


def _read_manifest(folder: Path) -> CheckpointManifest:
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if "recipe" in content:  # format 1
            raise InputError(
                f"{folder / MANIFEST}: written by an older version of raysys (format 1, {_FORMAT} is read); "
                "train under another `name`, or with that version"
            )
        return CheckpointManifest.model_validate(content)
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedData(
            f"{folder / MANIFEST}: not readable ({reason}); remove the run's folder to train from the start"
        ) from error
