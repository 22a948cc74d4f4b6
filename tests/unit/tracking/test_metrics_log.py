"""`metrics.jsonl`: one line a step, without gaps or duplicates after a restart."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raysys.tracking.metrics_log import (
    MetricsLog,
    read_metrics,
    read_recent_steps,
    read_validations,
    record_validation,
)
from tests.unit.storage.flaky_store import FlakyStore

STORE = "store://shop/run"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local file behind the metrics of `STORE`."""
    (tmp_path / "shop/run").mkdir(parents=True)
    filesystem = pafs.PyFileSystem(FlakyStore(tmp_path))
    monkeypatch.setattr("raysys.storage.uri._store", lambda scheme, bucket, query: (filesystem, bucket))
    return tmp_path / "shop/run/metrics.jsonl"


def test_local_lines_are_readable_at_once(tmp_path: Path) -> None:
    metrics_log = MetricsLog(str(tmp_path), continue_after=0)
    assert read_metrics(str(tmp_path)) == []
    metrics_log.add(10, {"loss": 2.5})
    assert read_metrics(str(tmp_path)) == [{"step": 10, "loss": 2.5}]
    metrics_log.add(20, {"loss": 2.25})
    written = (tmp_path / "metrics.jsonl").read_text()
    assert written == '{"step": 10, "loss": 2.5}\n{"step": 20, "loss": 2.25}\n'


def test_restart_drops_rows_after_its_checkpoint(tmp_path: Path) -> None:
    metrics_log = MetricsLog(str(tmp_path), continue_after=0)
    for step in (10, 20, 30, 40):
        metrics_log.add(step, {"loss": float(step)})
    restarted = MetricsLog(str(tmp_path), continue_after=20)
    restarted.add(30, {"loss": 0.5})
    assert [(row["step"], row["loss"]) for row in read_metrics(str(tmp_path))] == [
        (10, 10.0),
        (20, 20.0),
        (30, 0.5),
    ]


def test_restart_from_the_beginning_drops_all_rows(tmp_path: Path) -> None:
    MetricsLog(str(tmp_path), continue_after=0).add(10, {"loss": 1.0})
    MetricsLog(str(tmp_path), continue_after=0).add(5, {"loss": 2.0})
    assert read_metrics(str(tmp_path)) == [{"step": 5, "loss": 2.0}]


def test_partial_line_of_a_killed_writer_is_ignored(tmp_path: Path) -> None:
    MetricsLog(str(tmp_path), continue_after=0).add(10, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    assert read_metrics(str(tmp_path)) == read_recent_steps(str(tmp_path)) == [{"step": 10, "loss": 1.0}]
    MetricsLog(str(tmp_path), continue_after=10).add(20, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(str(tmp_path))] == [10, 20]


def test_object_store_is_written_every_ten_seconds_and_on_flush(store: Path) -> None:
    now = [100.0]
    metrics_log = MetricsLog(STORE, continue_after=0, clock=lambda: now[0])
    metrics_log.add(1, {"loss": 1.0})
    assert store.read_text() == ""
    now[0] = 110.0
    metrics_log.add(2, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(STORE)] == [1, 2]
    metrics_log.add(3, {"loss": 3.0})
    assert [row["step"] for row in read_metrics(STORE)] == [1, 2]
    metrics_log.flush()
    assert [row["step"] for row in read_metrics(STORE)] == [1, 2, 3]


def test_recent_steps_are_the_last_complete_lines_of_a_long_file(tmp_path: Path) -> None:
    assert read_recent_steps(str(tmp_path)) == []
    lines = "".join(f'{{"step": {step:6d}, "loss": 1.0}}\n' for step in range(1, 3001))  # 30 bytes each
    (tmp_path / "metrics.jsonl").write_text(lines)
    steps = [row["step"] for row in read_recent_steps(str(tmp_path))]
    assert len(lines) == 3000 * 30
    assert steps == list(range(3000 - 65536 // 30 + 1, 3001))


def test_validations_are_sorted_by_step_and_known_ones_are_not_read(tmp_path: Path) -> None:
    for step in (1000, 8):
        record_validation(str(tmp_path), step, {"val_r@5": step / 1000})
    (tmp_path / "validated/00000008.jpg").write_bytes(b"a grid")
    assert [row["step"] for row in read_validations(str(tmp_path))] == [8, 1000]
    assert read_validations(str(tmp_path), without=frozenset({8})) == [{"step": 1000, "val_r@5": 1.0}]
