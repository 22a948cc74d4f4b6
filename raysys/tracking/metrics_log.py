"""`metrics.jsonl`: the figures of a run, a line each, beside its checkpoints, and what these scored."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from raysys import storage

METRICS = "metrics.jsonl"
_VALIDATED = "validated"
_RECENT_BYTES = 1 << 16
_WRITE_EVERY_S = 10.0
_TIMES_A_WRITE = 100  # on a store the whole file is written again: for at most a hundredth of the time


class MetricsFile:
    """Appends figures to a run's file; what was written after step `continue_after` is dropped first.

    On a local disk a reader sees a line at once, on an object store after some seconds, or after `flush`.
    """

    def __init__(
        self, run_uri: str, *, continue_after: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._uri, self._clock = storage.join(run_uri, METRICS), clock
        rows = [row for row in read_steps(run_uri) if row["step"] <= continue_after]
        self._text = [_line(row) for row in rows]
        self._is_behind, self._due_at = True, 0.0
        self.flush()

    def add(self, step: int, values: dict[str, float]) -> None:
        """Add a line."""
        line = _line({"step": step, **values})
        if storage.is_local(self._uri):
            with storage.local_path(self._uri).open("a") as file:
                file.write(line)
            return
        self._text.append(line)
        self._is_behind = True
        if self._clock() >= self._due_at:
            self.flush()

    def flush(self) -> None:
        """Let readers see every line."""
        if not self._is_behind:
            return
        began = self._clock()
        storage.write_bytes(self._uri, "".join(self._text).encode(), durable=False)
        ended = self._clock()
        self._is_behind = False
        self._due_at = ended + max(_WRITE_EVERY_S, _TIMES_A_WRITE * (ended - began))


def record_validation(run_uri: str, step: int, values: dict[str, float]) -> None:
    """Keep what was measured of the checkpoint after `step` steps; a second time replaces the first."""
    uri = storage.join(run_uri, _VALIDATED, f"{step:08d}.json")
    storage.write_bytes(uri, json.dumps({"step": step, **values}).encode())


def neighbour_grid_uri(run_uri: str, step: int) -> str:
    """Where the pictures that belong to a measurement lie, if it made any."""
    return storage.join(run_uri, _VALIDATED, f"{step:08d}.jpg")


def read_metrics(run_uri: str) -> list[dict[str, float]]:
    """The figures that a run recorded so far, a dict a line, and then those of its checkpoints."""
    return read_steps(run_uri) + read_validations(run_uri)


def read_steps(run_uri: str) -> list[dict[str, float]]:
    """The figures of the steps alone."""
    uri = storage.join(run_uri, METRICS)
    return _rows(storage.read_bytes(uri)) if storage.exists(uri) else []


def recent_steps(run_uri: str) -> list[dict[str, float]]:
    """The last hundred figures or so, for as much work as ten of them in a short run or in a long one."""
    uri = storage.join(run_uri, METRICS)
    ((num_bytes, _),) = storage.stat_files([uri])
    if num_bytes <= 0:
        return []
    start = max(0, num_bytes - _RECENT_BYTES)
    data = storage.read_range(uri, start, _RECENT_BYTES)
    return _rows(data.partition(b"\n")[2] if start else data)


def read_validations(run_uri: str, without: frozenset[int] = frozenset()) -> list[dict[str, float]]:
    """What was measured of a run's checkpoints, in the order of their steps; some need not be read again."""
    folder = storage.join(run_uri, _VALIDATED)
    names = [name for name in storage.list_files(folder) if name.endswith(".json")]
    wanted = [name for name in names if int(name.removesuffix(".json")) not in without]
    return [json.loads(storage.read_bytes(storage.join(folder, name))) for name in wanted]


def _line(row: dict[str, float]) -> str:
    return json.dumps(row) + "\n"


def _rows(data: bytes) -> list[dict[str, float]]:
    """Whole lines alone: who writes may be at the last one, or was killed there."""
    return [json.loads(line) for line in data.decode().rpartition("\n")[0].splitlines()]
