"""Figures of a run: a line each, and a restart continues them without a gap or a repetition."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raysys.tracking.metrics_log import (
    MetricsFile,
    read_metrics,
    read_validations,
    recent_steps,
    record_validation,
)
from tests.unit.storage.flaky_store import FlakyStore

STORE = "store://shop/run"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for `STORE`'s metrics on an object store."""
    (tmp_path / "shop/run").mkdir(parents=True)
    filesystem = pafs.PyFileSystem(FlakyStore(tmp_path))
    monkeypatch.setattr("raysys.storage.uri._store", lambda scheme, bucket, query: (filesystem, bucket))
    return tmp_path / "shop/run/metrics.jsonl"


def test_lines_are_readable_at_once(tmp_path: Path) -> None:
    figures = MetricsFile(str(tmp_path), continue_after=0)
    assert read_metrics(str(tmp_path)) == []
    figures.add(10, {"loss": 2.5})
    assert read_metrics(str(tmp_path)) == [{"step": 10, "loss": 2.5}]
    figures.add(20, {"loss": 2.25})
    written = (tmp_path / "metrics.jsonl").read_text()
    assert written == '{"step": 10, "loss": 2.5}\n{"step": 20, "loss": 2.25}\n'


def test_restart_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    figures = MetricsFile(str(tmp_path), continue_after=0)
    for step in (10, 20, 30, 40):
        figures.add(step, {"loss": float(step)})
    again = MetricsFile(str(tmp_path), continue_after=20)
    again.add(30, {"loss": 0.5})
    assert [(row["step"], row["loss"]) for row in read_metrics(str(tmp_path))] == [
        (10, 10.0),
        (20, 20.0),
        (30, 0.5),
    ]


def test_restart_from_the_beginning_drops_everything(tmp_path: Path) -> None:
    MetricsFile(str(tmp_path), continue_after=0).add(10, {"loss": 1.0})
    MetricsFile(str(tmp_path), continue_after=0).add(5, {"loss": 2.0})
    assert read_metrics(str(tmp_path)) == [{"step": 5, "loss": 2.0}]


def test_line_that_a_killed_writer_left_half_is_none(tmp_path: Path) -> None:
    MetricsFile(str(tmp_path), continue_after=0).add(10, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    assert read_metrics(str(tmp_path)) == recent_steps(str(tmp_path)) == [{"step": 10, "loss": 1.0}]
    MetricsFile(str(tmp_path), continue_after=10).add(20, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(str(tmp_path))] == [10, 20]


def test_object_store_is_written_to_now_and_then_and_when_asked(store: Path) -> None:
    now = [100.0]
    figures = MetricsFile(STORE, continue_after=0, clock=lambda: now[0])
    figures.add(1, {"loss": 1.0})
    assert store.read_text() == ""
    now[0] = 110.0
    figures.add(2, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(STORE)] == [1, 2]
    figures.add(3, {"loss": 3.0})
    assert [row["step"] for row in read_metrics(STORE)] == [1, 2]
    figures.flush()
    assert [row["step"] for row in read_metrics(STORE)] == [1, 2, 3]


def test_recent_figures_are_the_last_whole_lines_of_a_long_file(tmp_path: Path) -> None:
    assert recent_steps(str(tmp_path)) == []
    lines = "".join(f'{{"step": {step:6d}, "loss": 1.0}}\n' for step in range(1, 3001))  # 30 bytes each
    (tmp_path / "metrics.jsonl").write_text(lines)
    steps = [row["step"] for row in recent_steps(str(tmp_path))]
    assert len(lines) == 3000 * 30
    assert steps == list(range(3000 - 65536 // 30 + 1, 3001))


def test_measurements_come_in_the_order_of_their_steps_and_those_known_are_not_read(tmp_path: Path) -> None:
    for step in (1000, 8):
        record_validation(str(tmp_path), step, {"val_r@5": step / 1000})
    (tmp_path / "validated/00000008.jpg").write_bytes(b"a picture")
    assert [row["step"] for row in read_validations(str(tmp_path))] == [8, 1000]
    assert read_validations(str(tmp_path), without=frozenset({8})) == [{"step": 1000, "val_r@5": 1.0}]
