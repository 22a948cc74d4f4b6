"""Figures of a run: a line each, and a restart continues them without a gap or a repetition."""

from __future__ import annotations

from pathlib import Path

from raysys.train.metrics import MetricsFile, read_metrics


def test_lines_are_readable_at_once(tmp_path: Path) -> None:
    figures = MetricsFile(str(tmp_path), continue_after=0)
    assert read_metrics(str(tmp_path)) == []
    figures.append(10, {"loss": 2.5})
    assert read_metrics(str(tmp_path)) == [{"step": 10, "loss": 2.5}]
    figures.append(10, {"val_r@1": 0.25})
    assert (
        tmp_path / "metrics.jsonl"
    ).read_text() == '{"step": 10, "loss": 2.5}\n{"step": 10, "val_r@1": 0.25}\n'


def test_restart_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    figures = MetricsFile(str(tmp_path), continue_after=0)
    for step in (10, 20, 30, 40):
        figures.append(step, {"loss": float(step)})
    again = MetricsFile(str(tmp_path), continue_after=20)
    again.append(30, {"loss": 0.5})
    assert [(row["step"], row["loss"]) for row in read_metrics(str(tmp_path))] == [
        (10, 10.0),
        (20, 20.0),
        (30, 0.5),
    ]


def test_restart_from_the_beginning_drops_everything(tmp_path: Path) -> None:
    MetricsFile(str(tmp_path), continue_after=0).append(10, {"loss": 1.0})
    MetricsFile(str(tmp_path), continue_after=0).append(5, {"loss": 2.0})
    assert read_metrics(str(tmp_path)) == [{"step": 5, "loss": 2.0}]
