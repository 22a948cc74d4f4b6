"""Which checkpoints of a run count: those in the list that Ray Train keeps beside them.

Ray writes its list in place: a kill may leave it torn, and another version of Ray may not read it. What it
held can be told from the checkpoints themselves, each of which says last of all that it is whole.
"""

from __future__ import annotations

import importlib.metadata
import json

from raysys import storage
from raysys.errors import DamagedData
from raysys.tracking import logs
from raysys.tracking.metrics_log import read_validations
from raysys.train.checkpoint.format import MANIFEST, checkpoint_name, checkpoint_step

SCORE = "score"  # the figure of a checkpoint that decides which is the best
_LIST = "checkpoint_manager_snapshot.json"
_UNREADABLE = (ValueError, KeyError, TypeError)


def newest_step(run_uri: str) -> int:
    """The step after which the run's last registered checkpoint was taken; 0 if there is none."""
    return max(registered_steps(run_uri), default=0)


def best_step(run_uri: str) -> int:
    """The step of the checkpoint with the highest score; the newest one if none was measured."""
    scored = _scores(run_uri)
    kept = [(scored[step], step) for step in registered_steps(run_uri) if step in scored]
    return max(kept)[1] if kept else newest_step(run_uri)


def best_checkpoint_uri(run_uri: str) -> str:
    """The checkpoint of `best_step`."""
    return storage.join(run_uri, checkpoint_name(best_step(run_uri)))


def registered_steps(run_uri: str) -> list[int]:
    """The steps of the checkpoints that Ray Train has in its list, by rising score.

    Raises: DamagedData if the list is torn.
    """
    uri = storage.join(run_uri, _LIST)
    if not storage.exists(uri):
        return []
    try:
        return _steps_of(storage.read_bytes(uri))
    except _UNREADABLE as error:
        raise DamagedData(
            f"{uri}: not readable ({error}); the command that trains the run mends it"
        ) from error


def whole_steps(run_uri: str) -> list[int]:
    """The steps of the checkpoints that were written to their end, in order, whether registered or not."""
    steps = [step for name in storage.list_folders(run_uri) if (step := checkpoint_step(name)) is not None]
    return sorted(
        step for step in steps if storage.exists(storage.join(run_uri, checkpoint_name(step), MANIFEST))
    )


def mend_list(run_uri: str) -> None:
    """Write Ray's list anew if this version of Ray cannot read it; nobody may be training here."""
    uri = storage.join(run_uri, _LIST)
    if not storage.exists(uri):
        return
    data, ray_version = storage.read_bytes(uri), importlib.metadata.version("ray")
    try:
        _steps_of(data)
        if (written_by := json.loads(data)["ray_version"]) == ray_version:
            return
        why = f"was written by Ray {written_by}"
    except _UNREADABLE:
        why = "was torn by a kill"
    steps = whole_steps(run_uri)
    logs.log.warning("    train  %s %s; made again from %d whole checkpoints", uri, why, len(steps))
    storage.write_bytes(uri, json.dumps(_list_of(run_uri, steps, ray_version)).encode())


def remove_unregistered(run_uri: str) -> None:
    """Remove checkpoints that were cut off before they were whole; nobody may be training here."""
    kept = set(registered_steps(run_uri))
    for name in storage.list_folders(run_uri):
        if (step := checkpoint_step(name)) is not None and step not in kept:
            storage.delete(storage.join(run_uri, name))


def _steps_of(data: bytes) -> list[int]:
    results = json.loads(data)["checkpoint_results"]
    return [int(one["checkpoint_dir_name"].rpartition("_")[2]) for one in results]


def _scores(run_uri: str) -> dict[int, float]:
    rows = read_validations(run_uri)
    return {int(row["step"]): row[f"val_{SCORE}"] for row in rows if f"val_{SCORE}" in row}


def _list_of(run_uri: str, steps: list[int], ray_version: str) -> dict[str, object]:
    """What Ray Train writes of these checkpoints (ray.train.v2, `_CheckpointManagerState`)."""
    scores = _scores(run_uri)
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
        "validated_checkpoint_dir_names": [checkpoint_name(step) for step in by_score if step in scores],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
