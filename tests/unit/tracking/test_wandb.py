"""W&B gets every metric once from a run that is started, killed and started again; W&B itself is a fake."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image

from raysys.config.schema import TrackingConfig
from raysys.errors import TrackingError
from raysys.tracking.metrics_log import MetricsLog, neighbour_grid_uri, record_validation
from raysys.tracking.wandb import (
    TrackedRun,
    WandbLogger,
    open_wandb_logger,
    open_wandb_run,
    read_logged_state,
)


class FakeWandbRun:
    """Writes its segment as a file in the run's folder, a line a row, like an offline run of W&B."""

    def __init__(self, run_uri: str, number: int) -> None:
        self.segment = f"segment-{number}"
        self._folder = Path(run_uri, "wandb", self.segment)
        self._folder.mkdir(parents=True)

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        with (self._folder / "rows").open("a") as file:
            file.write(f"{step} {','.join(sorted(values))}\n")

    def log_table(
        self, name: str, columns: list[str], rows: list[list[Any]], step: int | None = None
    ) -> None:
        assert columns == ["step", "neighbours"]
        assert rows[0][0] == step
        assert rows[0][1].size == (4, 2)
        self.log({name: 1}, step)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    """A run that is tracked offline by `FakeWandbRun`."""
    numbers = iter(range(1, 100))

    @contextlib.contextmanager
    def open_fake_run(name: str, uri: str, config: Mapping[str, Any], _: Any) -> Iterator[FakeWandbRun]:
        yield FakeWandbRun(uri, next(numbers))

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


def test_server_that_does_not_answer_is_told_within_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def init(**settings: Any) -> None:
        limits.append(settings["settings"].init_timeout)
        raise wandb.errors.CommError("POST http://127.0.0.1/graphql:\ncontext deadline exceeded")

    monkeypatch.setattr(wandb, "init", init)
    section = TrackingConfig(mode="online", connect_timeout_s=2)
    with (
        pytest.raises(
            TrackingError, match=r"^W&B: no run within 2 s, tracking.connect_timeout_s \(POST [^\n]*\);"
        ),
        open_wandb_run("small", str(tmp_path), {}, section),
    ):
        pass
    assert limits == [2]
