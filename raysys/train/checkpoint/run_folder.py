"""The folder of a training run, before anything is trained: may this run begin, or go on?

`run.json` lies in each of them, written when the run begins: what was content of it and what it was made
from. So a run of the same name that is another one is found out before a cluster is asked for anything.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysys import storage
from raysys.artifacts import code_version
from raysys.artifacts.specs import TrainingRun
from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.train.checkpoint.registry import mend_list, newest_step, remove_unregistered, whole_steps

_RUN = "run.json"
_FORMAT = 2  # of run.json
_INPUTS = {"shards": "other shards", "start": "another start"}
_NAMED = 3  # differences that a refusal names
_CHECKPOINTS = 3  # on the disk at a time: the best, the newest, and the one that is being written


def prepare_run_folder(run: TrainingRun, section: TrainConfig, *, num_steps: int, start_uri: str) -> None:
    """Make the run's folder ready, or refuse.

    Raises: InputError if a run of this name was trained with other settings or data and
    `train.on_config_change` is `refuse`, if this one is already longer than `num_steps`, or if there is no
    room for its checkpoints.
    """
    mend_list(run.uri)
    trained = newest_step(run.uri)
    if not trained and section.on_config_change == "refuse":
        _require_no_other(run)
    if trained > num_steps:
        raise InputError(
            f"{run.uri}: was already trained for {trained} steps, train.epochs={section.epochs:g} are "
            f"{num_steps}; raise it, or give the run another name"
        )
    remove_unregistered(run.uri)
    if trained < num_steps:
        _require_room(run.uri, start_uri, section)
    if not storage.exists(storage.join(run.uri, _RUN)):
        _write(run)


def _require_no_other(run: TrainingRun) -> None:
    """Refuse if another run of this name has got as far as a checkpoint."""
    others = list(_others(run))
    if not others:
        return
    latest = max(others, key=lambda content: str(content["created_at"]))
    differences = _differences(latest, run)
    named, more = differences[:_NAMED], len(differences) - _NAMED
    listed = ", and ".join([*named, f"{more} more"] if more > 0 else named)
    raise InputError(
        f"{run.home}: was trained with {listed}; give it another name, or set train.on_config_change=restart"
    )


def _others(run: TrainingRun) -> Iterator[dict[str, Any]]:
    """What the other runs of this name that have a checkpoint say of themselves."""
    for name in storage.list_folders(run.home):
        uri = storage.join(run.home, name)
        content = storage.join(uri, _RUN)
        if uri != run.uri and whole_steps(uri) and storage.exists(content):
            yield json.loads(storage.read_bytes(content))


def _differences(before: Mapping[str, Any], run: TrainingRun) -> list[str]:
    """`key=old, now new` for settings, then a word for each input."""
    if before.get("format") != _FORMAT:
        return ["an older version of raysys"]
    inputs = [
        word
        for name, word in _INPUTS.items()
        if before["inputs"][name]["fingerprint"] != run.inputs[name].fingerprint
    ]
    return [*_changes(before["settings"], run.settings), *inputs]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys that differ, dotted as in a configuration."""
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key, "unset"), new.get(key, "unset")
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _changes(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key}={_shown(was)}, now {_shown(now)}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _write(run: TrainingRun) -> None:
    content = {
        "format": _FORMAT,
        "spec_hash": run.spec_hash,
        "settings": run.settings,
        "inputs": {name: entry.model_dump() for name, entry in run.inputs.items()},
        "code_version": code_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    storage.write_bytes(storage.join(run.uri, _RUN), json.dumps(content, indent=2).encode())


def _require_room(run_uri: str, start_uri: str, section: TrainConfig) -> None:
    """Refuse a local disk that cannot take the checkpoints; those that lie there already count as room."""
    if not storage.is_local(run_uri):
        return
    needed = _CHECKPOINTS * _state_bytes(start_uri, section)
    free = shutil.disk_usage(_nearest(storage.local_path(run_uri))).free
    free += sum(size for name, size in storage.list_files(run_uri).items() if name.startswith("checkpoint_"))
    if free < needed:
        raise InputError(
            f"{run_uri}: {_CHECKPOINTS} checkpoints need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free; free space there, or set root to another place"
        )


def _state_bytes(start_uri: str, section: TrainConfig) -> int:
    """About what a checkpoint takes: the weights, AdamW's two averages of them, a third if that is kept."""
    files = storage.list_files(start_uri)
    weights = sum(size for name, size in files.items() if name.endswith(".safetensors"))
    return weights * (1 + (0 if section.lora else 2) + (1 if section.ema_decay else 0))


def _nearest(path: Path) -> Path:
    """The path, or the closest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
