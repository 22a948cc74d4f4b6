"""What W&B hears of a run that is started, killed and started again: a tracker that writes it down."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raysys.config.schema import TrackingConfig
from raysys.tracking.metrics_log import MetricsFile, neighbour_grid_uri, record_validation
from raysys.tracking.wandb import TrackedRun, WandbLogger, open_wandb_logger, read_logged_state


class Notebook:
    """A tracker whose segment is a file of the run's folder, a line a row, like an offline run of W&B."""

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
    """A run that is tracked in notebooks."""
    numbers = iter(range(1, 100))

    @contextlib.contextmanager
    def tracking(name: str, uri: str, config: Mapping[str, Any], **_: Any) -> Iterator[Notebook]:
        yield Notebook(uri, next(numbers))

    monkeypatch.setattr("raysys.tracking.wandb.open_wandb_run", tracking)
    return TrackedRun("small", str(tmp_path), {}, TrackingConfig(mode="offline"))


def heard(run: TrackedRun) -> list[str]:
    """All rows, in the order in which `wandb sync --append` would send them."""
    files = sorted(Path(run.uri).glob("wandb/segment-*/rows"))
    return [line for path in files for line in path.read_text().splitlines()]


def train(run: TrackedRun, teller: WandbLogger, start: int, stop: int) -> None:
    figures = MetricsFile(run.uri, continue_after=start)
    for step in range(start + 1, stop + 1):
        figures.add(step, {"loss": 1.0})
        teller.add(step, {"loss": 1.0})


def killed(run: TrackedRun, start: int, stop: int) -> None:
    """Train in a segment that does not come to its end."""
    entered = open_wandb_logger(run, start)
    teller = entered.__enter__()
    assert teller is not None
    train(run, teller, start, stop)
    told = Path(run.uri, "wandb/told.json").read_bytes()
    with contextlib.suppress(RuntimeError):
        entered.gen.throw(RuntimeError("killed"))  # so that nothing is left open
    Path(run.uri, "wandb/told.json").write_bytes(told)


def finished(run: TrackedRun, start: int, stop: int) -> None:
    with open_wandb_logger(run, start) as teller:
        assert teller is not None
        train(run, teller, start, stop)


def test_killed_start_is_told_again_up_to_its_checkpoint_and_no_step_twice(run: TrackedRun) -> None:
    killed(run, 0, 6)
    record_validation(run.uri, 4, {"val_r@5": 0.5})
    finished(run, 4, 8)
    assert heard(run) == [
        *(f"{step} train/loss" for step in (1, 2, 3, 4)),
        "4 train/val_r@5",
        *(f"{step} train/loss" for step in (5, 6, 7, 8)),
    ]
    assert read_logged_state(run.uri).step == 8
    assert [path.name for path in Path(run.uri).glob("wandb/segment-*")] == ["segment-2"]


def test_segment_that_came_to_its_end_is_not_told_again(run: TrackedRun) -> None:
    record_validation(run.uri, 2, {"val_r@5": 0.5})
    finished(run, 0, 4)
    killed(run, 4, 6)
    finished(run, 4, 8)
    assert [line for line in heard(run) if "loss" in line] == [f"{step} train/loss" for step in range(1, 9)]
    assert heard(run).count("2 train/val_r@5") == 1


def test_measurement_after_the_last_step_is_told_by_who_comes_next(run: TrackedRun) -> None:
    finished(run, 0, 4)
    record_validation(run.uri, 4, {"val_r@5": 0.5})
    for _ in range(2):
        finished(run, 4, 4)
    assert heard(run) == [*(f"{step} train/loss" for step in (1, 2, 3, 4)), "4 train/val_r@5"]


def test_pictures_stand_beside_their_measurement(run: TrackedRun) -> None:
    record_validation(run.uri, 4, {"val_r@5": 0.5})
    Image.new("RGB", (4, 2)).save(neighbour_grid_uri(run.uri, 4))
    finished(run, 4, 4)
    assert heard(run) == ["4 train/val_r@5", "4 train/neighbours"]


def test_what_is_told_live_is_remembered_at_once(run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    live = TrackedRun(run.name, run.uri, {}, TrackingConfig(mode="online"))
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(RuntimeError, match="lost"), open_wandb_logger(live, 0) as teller:  # noqa: PT012  # it must be open
        assert teller is not None
        train(live, teller, 0, 4)
        teller.flush()
        assert read_logged_state(live.uri).open_segment is None
        raise RuntimeError("lost")
    finished(live, 4, 6)
    assert heard(live) == [f"{step} train/loss" for step in range(1, 7)]


def test_disabled_leaves_everything_to_be_told(run: TrackedRun, tmp_path: Path) -> None:
    silent = TrackedRun(run.name, run.uri, {}, TrackingConfig(mode="disabled"))
    with open_wandb_logger(silent, 0) as teller:
        assert teller is None
    MetricsFile(run.uri, continue_after=0).add(1, {"loss": 1.0})
    shutil.rmtree(tmp_path / "wandb", ignore_errors=True)
    finished(run, 1, 1)
    assert heard(run) == ["1 train/loss"]
