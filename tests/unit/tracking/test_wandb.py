"""W&B gets every metric once from a run that is started, killed and started again; W&B itself is a fake."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raysys.config.schema import TrackingConfig
from raysys.errors import TrackingError
from raysys.tracking.metrics_log import MetricsLog, neighbour_grid_uri, record_validation
from raysys.tracking.wandb import (
    TrackedRun,
    WandbLogger,
    open_wandb_logger,
    read_logged_state,
    report_offline_segments,
)


class FakeWandbRun:
    """Writes its segment as a file in the run's folder, a line a row, like an offline run of W&B."""

    def __init__(self, run_uri: str, number: int, *, is_live: bool) -> None:
        self.is_live, self.has_failed = is_live, False
        self.segment = f"segment-{number}"
        self._folder = Path(run_uri, "wandb", self.segment)
        self._folder.mkdir(parents=True)

    def log(self, values: Mapping[str, Any], step: int | None = None) -> bool:
        if not self.has_failed:
            with (self._folder / "rows").open("a") as file:
                file.write(f"{step} {','.join(sorted(values))}\n")
        return not self.has_failed

    def log_image(self, name: str, image: Image.Image, step: int | None = None) -> bool:
        assert image.size == (4, 2)
        return self.log({name: 1}, step)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    """A run that is tracked offline by `FakeWandbRun`."""
    numbers = iter(range(1, 100))

    @contextlib.contextmanager
    def open_fake_run(
        name: str, uri: str, config: Mapping[str, Any], section: TrackingConfig
    ) -> Iterator[FakeWandbRun]:
        yield FakeWandbRun(uri, next(numbers), is_live=section.mode == "online")

    monkeypatch.setattr("raysys.tracking.wandb.open_wandb_run", open_fake_run)
    return TrackedRun("small", str(tmp_path), {}, TrackingConfig(mode="offline"))


def uploaded(run: TrackedRun) -> list[str]:
    """All rows, in the order in which `wandb sync --append` would upload them."""
    files = sorted(Path(run.uri).glob("wandb/segment-*/rows"))
    return [line for path in files for line in path.read_text().splitlines()]


def train(run: TrackedRun, logger: WandbLogger, start: int, stop: int) -> None:
    metrics_log = MetricsLog(run.uri, continue_after=start)
    for step in range(start + 1, stop + 1):
        metrics_log.add(step, {"loss": 1.0})
        logger.add(step, {"loss": 1.0})


def train_and_kill(run: TrackedRun, start: int, stop: int) -> None:
    """Train in a segment that stays incomplete."""
    context = open_wandb_logger(run, start)
    logger = context.__enter__()
    assert logger is not None
    train(run, logger, start, stop)
    state = Path(run.uri, "wandb/logged.json").read_bytes()
    with contextlib.suppress(RuntimeError):
        context.gen.throw(RuntimeError("killed"))  # closes the generator
    Path(run.uri, "wandb/logged.json").write_bytes(state)


def train_and_finish(run: TrackedRun, start: int, stop: int) -> None:
    with open_wandb_logger(run, start) as logger:
        assert logger is not None
        train(run, logger, start, stop)


def test_killed_attempt_is_logged_again_up_to_its_checkpoint(run: TrackedRun) -> None:
    train_and_kill(run, 0, 6)
    record_validation(run.uri, 4, {"val_r@5": 0.5})
    train_and_finish(run, 4, 8)
    assert uploaded(run) == [
        *(f"{step} train/loss" for step in (1, 2, 3, 4)),
        "4 train/val_r@5",
        *(f"{step} train/loss" for step in (5, 6, 7, 8)),
    ]
    assert read_logged_state(run.uri).step == 8
    assert [path.name for path in Path(run.uri).glob("wandb/segment-*")] == ["segment-2"]


def test_complete_segment_is_not_logged_again(run: TrackedRun) -> None:
    record_validation(run.uri, 2, {"val_r@5": 0.5})
    train_and_finish(run, 0, 4)
    train_and_kill(run, 4, 6)
    train_and_finish(run, 4, 8)
    rows = uploaded(run)
    assert [line for line in rows if "loss" in line] == [f"{step} train/loss" for step in range(1, 9)]
    assert rows.count("2 train/val_r@5") == 1


def test_late_validation_is_logged_once_by_the_next_logger(run: TrackedRun) -> None:
    train_and_finish(run, 0, 4)
    record_validation(run.uri, 4, {"val_r@5": 0.5})
    for _ in range(2):
        train_and_finish(run, 4, 4)
    assert uploaded(run) == [*(f"{step} train/loss" for step in (1, 2, 3, 4)), "4 train/val_r@5"]


def test_neighbour_grid_is_logged_with_its_validation(run: TrackedRun) -> None:
    record_validation(run.uri, 4, {"val_r@5": 0.5})
    Image.new("RGB", (4, 2)).save(neighbour_grid_uri(run.uri, 4))
    train_and_finish(run, 4, 4)
    assert uploaded(run) == ["4 train/val_r@5", "4 train/neighbours"]


def test_online_metrics_count_as_logged_at_once(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    online = TrackedRun(run.name, run.uri, {}, TrackingConfig(mode="online"))
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(RuntimeError, match="lost"), open_wandb_logger(online, 0) as logger:  # noqa: PT012  # it must be open
        assert logger is not None
        train(online, logger, 0, 4)
        logger.flush()
        assert read_logged_state(online.uri).open_segment is None
        raise RuntimeError("lost")
    train_and_finish(online, 4, 6)
    assert uploaded(online) == [f"{step} train/loss" for step in range(1, 7)]


def test_disabled_run_is_logged_completely_once_it_is_enabled(run: TrackedRun, tmp_path: Path) -> None:
    disabled = TrackedRun(run.name, run.uri, {}, TrackingConfig(mode="disabled"))
    with open_wandb_logger(disabled, 0) as logger:
        assert logger is None
    MetricsLog(run.uri, continue_after=0).add(1, {"loss": 1.0})
    shutil.rmtree(tmp_path / "wandb", ignore_errors=True)
    train_and_finish(run, 1, 1)
    assert uploaded(run) == ["1 train/loss"]


def test_steps_after_a_failure_of_wandb_are_logged_by_the_next_start(run: TrackedRun) -> None:
    with open_wandb_logger(run, 0) as logger:
        assert logger is not None
        train(run, logger, 0, 2)
        logger._wandb_run.has_failed = True
        train(run, logger, 2, 4)
    assert read_logged_state(run.uri).open_segment == "segment-1"
    train_and_finish(run, 4, 5)
    assert uploaded(run) == [f"{step} train/loss" for step in range(1, 6)]


def test_run_that_wandb_cannot_log_at_all_goes_on(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise TrackingError("W&B: no offline run (no process)")

    monkeypatch.setattr("raysys.tracking.wandb.open_wandb_run", fail)
    with open_wandb_logger(run, 0) as logger:
        assert logger is None
    assert caplog.messages == ["W&B: no offline run (no process); this start does not log to W&B"]


def test_offline_segments_of_an_online_run_are_named_with_the_command_that_uploads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = TrackingConfig(mode="online")
    (tmp_path / "wandb/offline-run-1-a").mkdir(parents=True)
    (tmp_path / "wandb/offline-run-1-a/run-a.wandb.synced").touch()
    report_offline_segments(str(tmp_path), online)
    assert not caplog.records  # it is uploaded
    (tmp_path / "wandb/offline-run-2-a").mkdir()
    report_offline_segments(str(tmp_path), TrackingConfig(mode="offline"))
    assert not caplog.records
    report_offline_segments(str(tmp_path), online)
    assert caplog.messages == [
        "    train  a part of this run is logged offline, because W&B did not answer; when it does: "
        f"wandb sync --append {tmp_path}/wandb/offline-run-*"
    ]
