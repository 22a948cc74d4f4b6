"""The line about a run, by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from raysys.tracking.metrics_log import MetricsFile, record_validation
from raysys.train.monitor.progress import Follower, RunLength, duration, progress_line, standing

LENGTH = RunLength(num_steps=4883, batch_size=256, num_items=250_000)  # 5.000192 epochs


def row(
    step: int, loss: float = 3.4, pairs_per_s: float = 2500.0, data_wait: float = 0.0
) -> dict[str, float]:
    return {"step": step, "loss": loss, "pairs_per_s": pairs_per_s, "data_wait": data_wait}


def scored(*scores: tuple[int, float]) -> list[dict[str, float]]:
    return [{"step": step, "val_score": score} for step, score in scores]


def line(rows: list[dict[str, float]], validations: list[dict[str, float]] | None = None) -> str:
    now = standing(LENGTH, rows)
    assert now is not None
    return progress_line(now, validations or [], "r@5")


def test_all_of_it() -> None:
    # (4883 - 1200) * 256 / 2500 = 377.1 s; 1200 * 256 / 250000 = 1.23 epochs.
    validations = scored((600, 0.3), (1000, 0.415), (1200, 0.412))
    assert line([row(1190, loss=3.5), row(1200, loss=3.3, data_wait=0.3)], validations) == (
        "step 1,200/4,883  epoch 1.2/5  loss 3.400  2,500 pairs/s  data wait 15%  "
        "val r@5 0.412 (best 0.415 at 1,000)  ends in 6 min"
    )


def test_what_is_not_worth_saying_is_not_said() -> None:
    assert line([row(1200, data_wait=0.03)]) == (
        "step 1,200/4,883  epoch 1.2/5  loss 3.400  2,500 pairs/s  ends in 6 min"
    )


def test_best_is_said_to_be_it() -> None:
    assert "val r@5 0.412 (the best)" in line([row(1200)], scored((600, 0.3), (1200, 0.412)))


def test_rate_is_pairs_by_time_and_not_the_mean_of_rates() -> None:
    # As many pairs at 1000/s as at 3000/s: 2 / (1/1000 + 1/3000) = 1500 pairs/s.
    assert "  1,500 pairs/s  " in line([row(10, pairs_per_s=1000.0), row(20, pairs_per_s=3000.0)])


def test_only_the_last_ten_rows_count() -> None:
    slow = [row(step, loss=9.0, pairs_per_s=1.0) for step in range(1, 31)]
    assert "loss 3.400  2,500 pairs/s" in line([*slow, *(row(step) for step in range(31, 41))])


def test_before_the_first_row_there_is_nothing_to_say() -> None:
    assert standing(LENGTH, []) is None


def test_last_step_is_the_end() -> None:
    assert line([row(4883)]).endswith("  epoch 5.0/5  loss 3.400  2,500 pairs/s  all steps are done")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (90_300, "25 h 05 min"),
    ],
)
def test_times_as_a_person_says_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The log lines, less what is the same in all."""
    lines: list[str] = []
    logger = logging.getLogger("raysys")
    monkeypatch.setattr(logger, "info", lambda text, *values: lines.append(text % values))
    return lines


def test_without_a_terminal_a_minute_or_a_measurement_is_a_line(tmp_path: Path, said: list[str]) -> None:
    now = [0.0]
    follower = Follower(str(tmp_path), LENGTH, "r@5", None, clock=lambda: now[0])
    follower.look()
    figures = MetricsFile(str(tmp_path), continue_after=0)
    for second in range(1, 131):
        now[0] = float(second)
        figures.add(second, row(second))
        if second == 70:
            record_validation(str(tmp_path), 64, {"val_score": 0.25})
        follower.look()
    # After a minute, at the measurement, and a minute after that.
    assert [one.split()[2] for one in said] == ["60/4,883", "70/4,883", "130/4,883"]
    assert said[0].endswith("ends in 8 min")
    assert "val r@5 0.250 (the best)" in said[1]


def test_on_a_terminal_the_bar_moves_and_measurements_alone_are_lines(
    tmp_path: Path, said: list[str]
) -> None:
    now, shown = [0.0], list[tuple[int, str]]()
    record_validation(str(tmp_path), 8, {"val_score": 0.125})  # of before a restart
    figures = MetricsFile(str(tmp_path), continue_after=0)
    figures.add(8, row(8))
    follower = Follower(
        str(tmp_path), LENGTH, "r@5", lambda *about: shown.append(about), clock=lambda: now[0]
    )
    follower.look()
    now[0] = 1000.0
    figures.add(20, row(20))
    follower.look()
    assert said == []
    assert [step for step, _ in shown] == [8, 20]
    assert shown[1][1].startswith("epoch 0.0/5  loss 3.400")
    record_validation(str(tmp_path), 16, {"val_score": 0.25})
    follower.look()
    assert len(said) == 1
