"""The progress line of a run, and when it is logged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from raysys.tracking.metrics_log import MetricsLog, record_validation
from raysys.tracking.progress import (
    ProgressReporter,
    RunLength,
    format_duration,
    progress_line,
    run_progress,
)

LENGTH = RunLength(num_steps=4883, batch_size=256, num_items=250_000)  # 5.000192 epochs


def row(
    step: int, loss: float = 3.4, pairs_per_s: float = 2500.0, data_wait: float = 0.0
) -> dict[str, float]:
    return {"step": step, "loss": loss, "pairs_per_s": pairs_per_s, "data_wait": data_wait}


def validations(*scores: tuple[int, float]) -> list[dict[str, float]]:
    return [{"step": step, "val_score": score} for step, score in scores]


def line(rows: list[dict[str, float]], validated: list[dict[str, float]] | None = None) -> str:
    progress = run_progress(LENGTH, rows)
    assert progress is not None
    return progress_line(progress, validated or [], "r@5")


def test_line_shows_all_parts() -> None:
    # (4883 - 1200) * 256 / 2500 = 377.1 s; 1200 * 256 / 250000 = 1.23 epochs.
    validated = validations((600, 0.3), (1000, 0.415), (1200, 0.412))
    assert line([row(1190, loss=3.5), row(1200, loss=3.3, data_wait=0.3)], validated) == (
        "step 1,200/4,883  epoch 1.2/5  loss 3.400  2,500 pairs/s  data wait 15%  "
        "val r@5 0.412 (best 0.415 at step 1,000)  6 min left"
    )


def test_small_data_wait_and_missing_validations_are_omitted() -> None:
    assert line([row(1200, data_wait=0.03)]) == (
        "step 1,200/4,883  epoch 1.2/5  loss 3.400  2,500 pairs/s  6 min left"
    )


def test_latest_score_is_marked_when_it_is_the_best() -> None:
    assert "val r@5 0.412 (best so far)" in line([row(1200)], validations((600, 0.3), (1200, 0.412)))


def test_rate_is_the_harmonic_mean_of_rates() -> None:
    # As many pairs at 1000/s as at 3000/s: 2 / (1/1000 + 1/3000) = 1500 pairs/s.
    assert "  1,500 pairs/s  " in line([row(10, pairs_per_s=1000.0), row(20, pairs_per_s=3000.0)])


def test_only_the_last_ten_rows_count() -> None:
    slow = [row(step, loss=9.0, pairs_per_s=1.0) for step in range(1, 31)]
    assert "loss 3.400  2,500 pairs/s" in line([*slow, *(row(step) for step in range(31, 41))])


def test_no_rows_give_no_progress() -> None:
    assert run_progress(LENGTH, []) is None


def test_last_step_has_no_time_left() -> None:
    assert line([row(4883)]).endswith("  epoch 5.0/5  loss 3.400  2,500 pairs/s  all steps done")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (90_300, "25 h 05 min"),
    ],
)
def test_durations_are_formatted(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The log lines."""
    lines: list[str] = []
    logger = logging.getLogger("raysys")
    monkeypatch.setattr(logger, "info", lambda text, *values: lines.append(text % values))
    return lines


def test_without_a_terminal_a_line_is_logged_each_minute_and_validation(
    tmp_path: Path, logged: list[str]
) -> None:
    now = [0.0]
    reporter = ProgressReporter(str(tmp_path), LENGTH, "r@5", None, clock=lambda: now[0])
    reporter.update()
    metrics_log = MetricsLog(str(tmp_path), continue_after=0)
    for second in range(1, 131):
        now[0] = float(second)
        metrics_log.add(second, row(second))
        if second == 70:
            record_validation(str(tmp_path), 64, {"val_score": 0.25})
        reporter.update()
    # After a minute, at the validation, and a minute after that.
    assert [one.split()[2] for one in logged] == ["60/4,883", "70/4,883", "130/4,883"]
    assert logged[0].endswith("8 min left")
    assert "val r@5 0.250 (best so far)" in logged[1]


def test_on_a_terminal_the_bar_is_updated_and_only_validations_are_logged(
    tmp_path: Path, logged: list[str]
) -> None:
    now, shown = [0.0], list[tuple[int, str]]()
    record_validation(str(tmp_path), 8, {"val_score": 0.125})  # from before a restart
    metrics_log = MetricsLog(str(tmp_path), continue_after=0)
    metrics_log.add(8, row(8))
    reporter = ProgressReporter(
        str(tmp_path), LENGTH, "r@5", lambda step, text: shown.append((step, text)), clock=lambda: now[0]
    )
    reporter.update()
    now[0] = 1000.0
    metrics_log.add(20, row(20))
    reporter.update()
    assert logged == []
    assert [step for step, _ in shown] == [8, 20]
    assert shown[1][1].startswith("epoch 0.0/5  loss 3.400")
    record_validation(str(tmp_path), 16, {"val_score": 0.25})
    reporter.update()
    assert len(logged) == 1
