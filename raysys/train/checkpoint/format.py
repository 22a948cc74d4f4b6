"""The training state on disk: all that a restart needs to continue with the same results.

A checkpoint is a folder with `state.pt` and, written last, `checkpoint.json`, which records the run, the step
and the hash of `state.pt`. It counts once Ray Train has registered it: other checkpoint folders are left over
from interrupted attempts (see `registry.py`). It holds no state of random number generators: every step seeds
them anew (see `train/rng.py`).
"""

from __future__ import annotations

import json
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
    """The content of `checkpoint.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = _FORMAT
    uri: str  # that the checkpoint was written to
    spec_hash: str  # of the run
    step: int
    stream_position: int  # number of samples of the training sequence that were used
    world_size: int
    files: dict[str, FileEntry]
    code_version: str


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint after `step` steps."""
    return f"{_PREFIX}{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """The step of a folder that is named like a checkpoint; None for any other name."""
    digits = name.removeprefix(_PREFIX)
    return int(digits) if name.startswith(_PREFIX) and digits.isdecimal() else None


def write_checkpoint(
    state: dict[str, Any], uri: str, *, step: int, spec_hash: str, stream_position: int, world_size: int
) -> None:
    """Write a `TrainState.state_dict()` as a checkpoint folder; removes an existing folder at `uri` first."""
    storage.delete(uri)
    with storage.writable_file(storage.join(uri, STATE)) as path:
        _save({"step": step, **state}, path)
        num_bytes, sha256 = storage.sha256_of(str(path))
    manifest = CheckpointManifest(
        uri=uri,
        spec_hash=spec_hash,
        step=step,
        stream_position=stream_position,
        world_size=world_size,
        files={STATE: FileEntry(bytes=num_bytes, sha256=sha256)},
        code_version=code_version(),
    )
    storage.write_bytes(storage.join(uri, MANIFEST), manifest.model_dump_json(indent=2).encode())


def _save(content: dict[str, Any], path: Path) -> None:
    """`torch.save`. Raises: OSError for a full disk.

    Given a path, torch does not report a full disk as such. Given a stream, it ends its archive after the
    error, and so replaces it by its own.
    """
    with path.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(train_state: TrainState, folder: Path) -> int:
    """Load a checkpoint into the training state and return its step.

    Raises: DamagedData if the files differ from those that were written.
    """
    state = _read(folder)
    train_state.load_state_dict(state)
    return int(state["step"])


def exported_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint under the names of a bundle (averaged or merged ones where it has them).

    They stay in the file until they are used, and the optimiser's state is never read into memory.
    Raises: DamagedData if the files differ from those that were written.
    """
    state = _read(folder, mmap=True)
    weights: dict[str, torch.Tensor] = state.get("weights", state["model"])
    return weights


def _read(folder: Path, *, mmap: bool = False) -> dict[str, Any]:
    manifest = _read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        num_bytes, sha256 = storage.sha256_of(str(path)) if path.is_file() else (0, "none")
        if (num_bytes, sha256) != (entry.bytes, entry.sha256):
            run_uri = manifest.uri.rpartition("/")[0]
            raise DamagedData(
                f"{manifest.uri}/{name}: {num_bytes} bytes with sha256 {sha256[:12]}, but "
                f"{entry.bytes} bytes with {entry.sha256[:12]} were written; restore the file, "
                f"or remove {run_uri} to train from the start"
            )
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=mmap)
    return state


def _read_manifest(folder: Path) -> CheckpointManifest:
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if "recipe" in content:  # format 1
            raise InputError(
                f"{folder / MANIFEST}: written by an older version of raysys (format 1; this version reads "
                f"format {_FORMAT}); change `name`, or train with that version"
            )
        return CheckpointManifest.model_validate(content)
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedData(
            f"{folder / MANIFEST}: not readable ({reason}); remove the run's folder to train from the start"
        ) from error
