"""The metrics of a run in its folder: `metrics.jsonl` (one line per logged step), one file per validation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping

from raysys import storage

METRICS = "metrics.jsonl"
_VALIDATIONS = "validated"
_RECENT_BYTES = 1 << 16
_MIN_WRITE_INTERVAL_S = 10.0
_WRITE_INTERVAL_FACTOR = 100  # an object store rewrites the complete file: spend 1 % of the time on that


class MetricsLog:
    """Appends metrics to a run's `metrics.jsonl`; rows after step `continue_after` are dropped first.

    On a local disk readers see a row at once, on an object store after some seconds or after `flush`.
    """

    def __init__(
        self, run_uri: str, *, continue_after: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._uri, self._clock = storage.join(run_uri, METRICS), clock
        rows = [row for row in read_steps(run_uri) if row["step"] <= continue_after]
        self._lines = [_to_line(row) for row in rows]
        self._has_unwritten, self._next_write_s = True, 0.0
        self.flush()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Append a row."""
        line = _to_line({"step": step, **values})
        if storage.is_local(self._uri):
            storage.append_bytes(self._uri, line.encode())
            return
        self._lines.append(line)
        self._has_unwritten = True
        if self._clock() >= self._next_write_s:
            self.flush()

    def flush(self) -> None:
        """Make every row visible to readers."""
        if not self._has_unwritten:
            return
        started = self._clock()
        storage.write_bytes(self._uri, "".join(self._lines).encode(), durable=False)
        ended = self._clock()
        self._has_unwritten = False
        self._next_write_s = ended + max(_MIN_WRITE_INTERVAL_S, _WRITE_INTERVAL_FACTOR * (ended - started))


def record_validation(run_uri: str, step: int, values: dict[str, float]) -> None:
    """Store the metrics of the checkpoint after `step` steps, replacing earlier ones."""
    uri = storage.join(run_uri, _VALIDATIONS, f"{step:08d}.json")
    storage.write_bytes(uri, json.dumps({"step": step, **values}).encode())


def neighbour_grid_uri(run_uri: str, step: int) -> str:
    """The URI of the neighbour grid of a validation; there may be none."""
    return storage.join(run_uri, _VALIDATIONS, f"{step:08d}.jpg")


def start_vectors_uri(run_uri: str) -> str:
    """The URI of the start's vectors of the photos in neighbour grids."""
    return storage.join(run_uri, _VALIDATIONS, "start.npy")


def read_metrics(run_uri: str) -> list[dict[str, float]]:
    """The rows of all logged steps, then those of all validations."""
    return read_steps(run_uri) + read_validations(run_uri)


def read_steps(run_uri: str) -> list[dict[str, float]]:
    """The rows of all logged steps."""
    uri = storage.join(run_uri, METRICS)
    return _parse_rows(storage.read_bytes(uri)) if storage.exists(uri) else []


def read_recent_steps(run_uri: str) -> list[dict[str, float]]:
    """The rows of the last logged steps, about a hundred: the cost does not grow with the run."""
    uri = storage.join(run_uri, METRICS)
    ((num_bytes, _),) = storage.stat_files([uri])
    if num_bytes <= 0:
        return []
    start = max(0, num_bytes - _RECENT_BYTES)
    data = storage.read_range(uri, start, _RECENT_BYTES)
    return _parse_rows(data.partition(b"\n")[2] if start else data)


def read_validations(run_uri: str, without: frozenset[int] = frozenset()) -> list[dict[str, float]]:
    """The rows of a run's validations by ascending step; those of the steps in `without` are not read."""
    folder = storage.join(run_uri, _VALIDATIONS)
    names = [name for name in storage.list_files(folder) if name.endswith(".json")]
    new_names = [name for name in names if int(name.removesuffix(".json")) not in without]
    return [json.loads(storage.read_bytes(storage.join(folder, name))) for name in new_names]


def validation_scores(rows: Iterable[Mapping[str, float]]) -> dict[int, float]:
    """Step -> the score that selects checkpoints, of the validations that have one, in their order."""
    return {int(row["step"]): row["val_score"] for row in rows if "val_score" in row}


def _to_line(row: dict[str, float]) -> str:
    return json.dumps(row) + "\n"


def _parse_rows(data: bytes) -> list[dict[str, float]]:
    """Rows of complete lines only: the last one may be partial, if its writer is not done or was killed."""
    return [json.loads(line) for line in data.decode().rpartition("\n")[0].splitlines()]
