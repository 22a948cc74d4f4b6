"""A disk that fills up while `raysys train` runs: one line with the place, and the same command goes on later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.disks import fill_disk, small_disk
from tests.e2e.small import CompletedCommand, kill_group, run_raysys, start_raysys, write_config

DISK_BYTES = 8 << 20
CHECKPOINT_STEP, NUM_STEPS = 61, 122  # 98 items in batches of 8: 5 and 10 epochs
TRAIN = {
    "workers": 1,
    "method": "full",
    "batch_size": 8,
    "epochs": 10,
    "checkpoint_every_epochs": 5,
    "validation": {"max_items": 0},
}
TIMEOUT_S = 240.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB that holds the runs of the root `tmp_path/root`."""
    folder = tmp_path / "root" / "runs"
    folder.mkdir(parents=True)
    with small_disk(folder, DISK_BYTES):
        yield folder


# Slow: three trainings.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_on_a_full_disk_names_the_file_and_continues_when_there_is_space(
    disk: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, {"train": TRAIN, "tracking": {"mode": "disabled"}})
    packed = run_raysys("pack", str(config), folder=tmp_path, timeout_s=TIMEOUT_S)
    assert packed.status == 0, packed.stderr

    def is_logging() -> bool:
        return bool(list(disk.glob("*/*/metrics.jsonl")))

    def has_checkpoint() -> bool:
        return bool(list(disk.glob("*/*/checkpoint_0*/checkpoint.json")))

    # No space at all: the first page of metrics.jsonl is full before the first checkpoint.
    ended = train_until_full(config, disk, is_logging, left_bytes=0)
    (metrics,) = disk.glob("*/*/metrics.jsonl")
    assert ended.status == 1
    line = ended.stderr.splitlines()[-1]
    assert line.startswith(f"raysys: {metrics}: could not be written (No space left on device: it needs ")
    assert line.endswith(" bytes, 0 bytes are free); free space there, or use another place")

    # The second checkpoint does not fit.
    (disk / "filler").unlink()
    ended = train_until_full(config, disk, has_checkpoint, left_bytes=300_000)
    state = metrics.parent / f"checkpoint_{NUM_STEPS:08d}" / "state.pt"
    assert ended.status == 1
    line = ended.stderr.splitlines()[-1]
    assert line.startswith(
        f"raysys: {state}: could not be written (No space left on device: it needs more than "
    )
    assert line.endswith(" kB that are free); free space there, or use another place")
    logged = metrics.read_text().splitlines()

    (disk / "filler").unlink()
    finished = run_raysys("train", str(config), folder=tmp_path, timeout_s=TIMEOUT_S)
    assert finished.status == 0, finished.stderr
    continued = metrics.read_text().splitlines()
    assert [json.loads(line)["step"] for line in continued] == [*range(10, NUM_STEPS, 10), NUM_STEPS]
    before_checkpoint = CHECKPOINT_STEP // 10  # lines: every tenth step is logged
    assert continued[:before_checkpoint] == logged[:before_checkpoint]  # with their times: not trained again


def train_until_full(
    config: Path, disk: Path, is_time: Callable[[], bool], *, left_bytes: int
) -> CompletedCommand:
    """Run `raysys train`, and fill the disk up to `left_bytes` as soon as `is_time`."""
    started = time.monotonic()
    stem = config.parent / f"train-{time.monotonic_ns()}"
    process = start_raysys("train", str(config), log_stem=stem)
    try:
        while not is_time():
            assert process.poll() is None, stem.with_suffix(".err").read_text()
            assert time.monotonic() - started < TIMEOUT_S
            time.sleep(0.01)
        fill_disk(disk, left_bytes)
        process.wait(TIMEOUT_S)
    finally:
        kill_group(process)
    out, err = (stem.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
    return CompletedCommand(process.returncode, out, err, time.monotonic() - started)
