"""The registered checkpoints of a run: those in the list that Ray Train stores beside them.

Ray Train overwrites its list in place: a kill may truncate it, and another version of Ray may not read it.
It can be rebuilt from the checkpoints: each complete one has a manifest, which is written last.
"""

from __future__ import annotations

import importlib.metadata
import json

from raysys import storage
from raysys.encoder.interpolation import SCORE
from raysys.errors import DamagedData
from raysys.tracking import logs
from raysys.tracking.metrics_log import read_validations, validation_scores
from raysys.train.checkpoint.format import MANIFEST, checkpoint_name, checkpoint_step

_LIST = "checkpoint_manager_snapshot.json"
_UNREADABLE = (ValueError, KeyError, TypeError)


def newest_step(run_uri: str) -> int:
    """The step of the run's newest registered checkpoint; 0 if there is none."""
    return max(registered_steps(run_uri), default=0)


def best_step(run_uri: str) -> int:
    """The step of the complete checkpoint with the highest score; of the newest one if none was validated."""
    scores, steps = validation_scores(read_validations(run_uri)), complete_steps(run_uri)
    candidates = [(scores[step], step) for step in steps if step in scores]
    return max(candidates)[1] if candidates else max(steps, default=0)


def best_checkpoint_uri(run_uri: str) -> str:
    """The URI of the checkpoint with the highest score."""
    return storage.join(run_uri, checkpoint_name(best_step(run_uri)))


def registered_steps(run_uri: str) -> list[int]:
    """The steps of the checkpoints in Ray Train's list, by ascending score.

    Raises: DamagedData if the list is truncated.
    """
    uri = storage.join(run_uri, _LIST)
    if not storage.exists(uri):
        return []
    try:
        return _steps_of(storage.read_bytes(uri))
    except _UNREADABLE as error:
        raise DamagedData(
            f"{uri}: not readable ({error}); `raysys train` with the run's configuration repairs it"
        ) from error


def complete_steps(run_uri: str) -> list[int]:
    """The steps of the completely written checkpoints, in ascending order, whether registered or not."""
    steps = [step for name in storage.list_folders(run_uri) if (step := checkpoint_step(name)) is not None]
    return sorted(
        step for step in steps if storage.exists(storage.join(run_uri, checkpoint_name(step), MANIFEST))
    )


def repair_list(run_uri: str) -> None:
    """Rebuild Ray Train's list if this version of Ray cannot read it; the run must not be training."""
    uri = storage.join(run_uri, _LIST)
    if not storage.exists(uri):
        return
    data, ray_version = storage.read_bytes(uri), importlib.metadata.version("ray")
    try:
        _steps_of(data)
        if (written_by := json.loads(data)["ray_version"]) == ray_version:
            return
        reason = f"was written by Ray {written_by}"
    except _UNREADABLE:
        reason = "is truncated"
    steps = complete_steps(run_uri)
    logs.log.warning("    train  %s %s; rebuilt from %d complete checkpoints", uri, reason, len(steps))
    storage.write_bytes(uri, json.dumps(_list_of(run_uri, steps, ray_version)).encode())


def remove_unregistered(run_uri: str) -> None:
    """Remove checkpoint folders that are not in the list; the run must not be training.

    They were left by workers that were killed before a checkpoint was complete or registered.
    """
    registered = set(registered_steps(run_uri))
    for name in storage.list_folders(run_uri):
        if (step := checkpoint_step(name)) is not None and step not in registered:
            storage.delete(storage.join(run_uri, name))


def _steps_of(data: bytes) -> list[int]:
    results = json.loads(data)["checkpoint_results"]
    return [int(one["checkpoint_dir_name"].rpartition("_")[2]) for one in results]


def _list_of(run_uri: str, steps: list[int], ray_version: str) -> dict[str, object]:
    """The list of these checkpoints in Ray Train's format (ray.train.v2, `_CheckpointManagerState`)."""
    scores = validation_scores(read_validations(run_uri))
    by_score = sorted(steps, key=lambda step: (scores.get(step, float("-inf")), step))
    results = {
        step: {
            "version": 0,
            "checkpoint_dir_name": checkpoint_name(step),
            "metrics": {"step": step, **({SCORE: scores[step]} if step in scores else {})},
        }
        for step in by_score
    }
    return {
        "ray_version": ray_version,
        "checkpoint_results": list(results.values()),
        "checkpoint_report_indices": [steps.index(step) for step in by_score],
        "latest_checkpoint_result": results[steps[-1]] if steps else None,
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(steps),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
