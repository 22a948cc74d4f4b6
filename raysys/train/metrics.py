"""`metrics.jsonl`: the figures of a run, a line each, beside its checkpoints."""

from __future__ import annotations

import json

from raysys import storage

METRICS = "metrics.jsonl"


class MetricsFile:
    """Appends figures to a run's file; what was written after step `continue_after` is dropped first."""

    def __init__(self, run_uri: str, *, continue_after: int) -> None:
        self._uri = storage.join(run_uri, METRICS)
        self._rows = [row for row in read_metrics(run_uri) if row["step"] <= continue_after]

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add a line; readers see it at once."""
        self._rows.append({"step": step, **values})
        text = "".join(json.dumps(row) + "\n" for row in self._rows)
        storage.write_bytes(self._uri, text.encode(), durable=False)


def read_metrics(run_uri: str) -> list[dict[str, float]]:
    """The figures that a run recorded so far, a dict a line."""
    uri = storage.join(run_uri, METRICS)
    if not storage.exists(uri):
        return []
    return [json.loads(line) for line in storage.read_bytes(uri).decode().splitlines()]
