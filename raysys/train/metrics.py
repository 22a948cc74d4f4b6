"""`metrics.jsonl`: the figures of a run, a line each, beside its checkpoints."""

from __future__ import annotations

import json

from raysys import storage

METRICS = "metrics.jsonl"
_VALIDATED = "validated"


class MetricsFile:
    """Appends figures to a run's file; what was written after step `continue_after` is dropped first."""

    def __init__(self, run_uri: str, *, continue_after: int) -> None:
        self._uri = storage.join(run_uri, METRICS)
        self._rows = [row for row in _read_steps(run_uri) if row["step"] <= continue_after]

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add a line; readers see it at once."""
        self._rows.append({"step": step, **values})
        text = "".join(json.dumps(row) + "\n" for row in self._rows)
        storage.write_bytes(self._uri, text.encode(), durable=False)


def record_validation(run_uri: str, step: int, values: dict[str, float]) -> None:
    """Keep what was measured of the checkpoint after `step` steps; a second time replaces the first."""
    uri = storage.join(run_uri, _VALIDATED, f"{step:08d}.json")
    storage.write_bytes(uri, json.dumps({"step": step, **values}).encode())


def read_metrics(run_uri: str) -> list[dict[str, float]]:
    """The figures that a run recorded so far, a dict a line, and then those of its checkpoints."""
    return _read_steps(run_uri) + read_validations(run_uri)


def read_validations(run_uri: str) -> list[dict[str, float]]:
    """What was measured of a run's checkpoints, in the order of their steps."""
    folder = storage.join(run_uri, _VALIDATED)
    return [json.loads(storage.read_bytes(storage.join(folder, name))) for name in storage.list_files(folder)]


def _read_steps(run_uri: str) -> list[dict[str, float]]:
    uri = storage.join(run_uri, METRICS)
    if not storage.exists(uri):
        return []
    return [json.loads(line) for line in storage.read_bytes(uri).decode().splitlines()]
