"""Checks of a run's folder before training: may this run begin or continue?

Every run writes `run.json` when it begins: the settings that decide its steps, and its inputs. So another run
of the same name is detected before a cluster is used.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from typing import Any

from raysys import storage
from raysys.artifacts import code_version
from raysys.artifacts.specs import TrainingRun
from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.terminal import as_size
from raysys.train.checkpoint.registry import complete_steps, newest_step, remove_unregistered, repair_list

_RUN = "run.json"
_FORMAT = 2  # of run.json
_INPUT_CHANGES = {"shards": "other shards", "start": "another start", "teacher": "another teacher"}
_MAX_NAMED_CHANGES = 3
_NUM_CHECKPOINTS = 3  # on the disk at a time: the best, the newest, and the one that is being written


def prepare_run_folder(run: TrainingRun, section: TrainConfig, *, num_steps: int, start_uri: str) -> None:
    """Prepare the run's folder for training.

    Raises: InputError if a run of this name was trained with other settings or data and
    `train.on_config_change` is `refuse`, if this run already has more than `num_steps` steps, or if the disk
    has too little space for its checkpoints.
    """
    repair_list(run.uri)
    trained_steps = newest_step(run.uri)
    if not trained_steps and section.on_config_change == "refuse":
        _require_no_other_run(run)
    if trained_steps > num_steps:
        raise InputError(
            f"{run.uri}: was already trained for {trained_steps} steps, but train.epochs={section.epochs:g} "
            f"gives {num_steps}; raise train.epochs, or change `name`"
        )
    remove_unregistered(run.uri)
    if trained_steps < num_steps:
        _require_disk_space(run.uri, start_uri, section)
    if not storage.exists(storage.join(run.uri, _RUN)):
        _write_run(run)


def _require_no_other_run(run: TrainingRun) -> None:
    """Raise InputError if another run of this name has a checkpoint."""
    uris = (storage.join(run.runs_uri, name) for name in storage.list_folders(run.runs_uri))
    others = [
        json.loads(storage.read_bytes(run_json))
        for uri in uris
        if uri != run.uri and complete_steps(uri) and storage.exists(run_json := storage.join(uri, _RUN))
    ]
    if not others:
        return
    changes = _changes(max(others, key=lambda content: str(content["created_at"])), run)
    named, num_more = changes[:_MAX_NAMED_CHANGES], len(changes) - _MAX_NAMED_CHANGES
    listed = ", and ".join([*named, f"{num_more} more"] if num_more > 0 else named)
    raise InputError(
        f"{run.runs_uri}: was trained with {listed}; change `name`, or set train.on_config_change=restart"
    )


def _changes(other: Mapping[str, Any], run: TrainingRun) -> list[str]:
    """How the other run differs: `key=old, now new` for settings, then a phrase for each input."""
    if other.get("format") != _FORMAT:
        return ["an older version of raysys"]
    inputs = [
        phrase
        for name, phrase in _INPUT_CHANGES.items()
        if name in other["inputs"]
        and name in run.inputs
        and other["inputs"][name]["fingerprint"] != run.inputs[name].fingerprint
    ]
    return [*_changed_settings(other["settings"], run.settings), *inputs]


def _changed_settings(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The settings that differ, under their dotted keys."""
    for key in sorted(old.keys() | new.keys()):
        old_value, new_value = old.get(key, "unset"), new.get(key, "unset")
        if isinstance(old_value, Mapping) and isinstance(new_value, Mapping):
            yield from _changed_settings(old_value, new_value, f"{prefix}{key}.")
        elif old_value != new_value:
            texts = (one if isinstance(one, str) else json.dumps(one) for one in (old_value, new_value))
            yield f"{prefix}{key}={', now '.join(texts)}"


def _write_run(run: TrainingRun) -> None:
    content = {
        "format": _FORMAT,
        "spec_hash": run.spec_hash,
        "settings": run.settings,
        "inputs": {name: entry.model_dump() for name, entry in run.inputs.items()},
        "code_version": code_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    storage.write_bytes(storage.join(run.uri, _RUN), json.dumps(content, indent=2).encode())


def _require_disk_space(run_uri: str, start_uri: str, section: TrainConfig) -> None:
    """Raise InputError if a local disk has too little space; the run's own checkpoints count as free."""
    if not storage.is_local(run_uri):
        return
    needed_bytes = _NUM_CHECKPOINTS * _checkpoint_bytes(start_uri, section)
    storage.require_folder(run_uri)
    free_bytes = storage.free_bytes(run_uri)
    free_bytes += sum(
        size for name, size in storage.list_files(run_uri).items() if name.startswith("checkpoint_")
    )
    if free_bytes < needed_bytes:
        raise InputError(
            f"{run_uri}: {_NUM_CHECKPOINTS} checkpoints need {as_size(needed_bytes)}, "
            f"{as_size(free_bytes)} are free; free space there, or set root to another disk"
        )


def _checkpoint_bytes(start_uri: str, section: TrainConfig) -> int:
    """Approximate size of a checkpoint: the weights, AdamW's two averages, and the EMA weights if enabled."""
    files = storage.list_files(start_uri)
    weights = sum(size for name, size in files.items() if name.endswith(".safetensors"))
    return weights * (1 + (0 if section.lora else 2) + (1 if section.ema_decay else 0))
