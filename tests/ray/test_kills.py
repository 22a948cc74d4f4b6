"""A hundred kills at random moments: every sample once, in the order of an uninterrupted run."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from raysys.shards.reader import Item, ShardRef
from raysys.stream.order import rows_of, windows
from tests.factories import photo, write_shards
from tests.ray.reading_worker import BATCH

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(3600)]
NUM_ITEMS, ITEMS_PER_SHARD, NUM_KILLS = 203, 32, 100
ROOT = Path(__file__).parents[2]


def expected_rows(shards: list[ShardRef], stop: int) -> list[list[int]]:
    """Position and item of the samples before `stop`, computed from the plan."""
    rows = []
    for window in windows([s.num_items for s in shards], seed=7, shards_per_window=2, start=0, stop=stop):
        numbers = [
            shard * ITEMS_PER_SHARD + row for shard in window.shards for row in range(shards[shard].num_items)
        ]
        for position, row in enumerate(rows_of(window, len(numbers)), start=window.position):
            rows.append([position, numbers[row]])
    return rows


def ray_workers(started_after: int) -> Iterator[int]:
    """Processes of the cluster that are reading or decoding; their ids are above `started_after`."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if (
                title.startswith((b"ray::MapWorker", b"ray::Read", b"ray::Map"))
                and int(folder.name) > started_after
            ):
                yield int(folder.name)


def test_hundred_kills_lose_and_repeat_no_sample(tmp_path: Path) -> None:
    items = [Item(f"i{number}", "cup", photo()) for number in range(NUM_ITEMS)]
    shards = write_shards(tmp_path, items, ITEMS_PER_SHARD)
    (tmp_path / "shards.json").write_text(json.dumps([dataclasses.asdict(shard) for shard in shards]))
    log, rng = tmp_path / "log.jsonl", random.Random(11)
    log.touch()
    stop, kills = 3 * NUM_KILLS, {"driver": 0, "worker": 0}

    def num_batches() -> int:
        return log.read_text().count("\n")

    while num_batches() < stop:
        ranks = rng.choice([1, 2, 4])  # a new number each time
        arguments = [ray.get_runtime_context().gcs_address, str(tmp_path / "shards.json"), str(log), str(ranks), str(stop)]  # fmt: skip
        with (tmp_path / "errors").open("w") as errors:
            command = [sys.executable, "-m", "tests.ray.reading_worker", *arguments]
            reader = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        first = num_batches()
        while reader.poll() is None and sum(kills.values()) < NUM_KILLS:
            next_kill = num_batches() + rng.randint(0, 2)
            while reader.poll() is None and num_batches() < next_kill:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.05)
            workers = list(ray_workers(started_after=reader.pid))
            if num_batches() > first and (rng.random() < 0.5 or not workers):
                reader.kill()
                reader.wait()
                kills["driver"] += 1
            elif workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
            (tmp_path / "kills.json").write_text(json.dumps(kills))
        assert reader.wait() in (0, -signal.SIGKILL), (tmp_path / "errors").read_text()[-3000:]
    rows = [row for line in log.read_text().splitlines() for row in json.loads(line)]
    assert rows == expected_rows(shards, stop * BATCH)
    print(f"{kills} over {stop} batches")
    assert sum(kills.values()) == NUM_KILLS
    assert min(kills.values()) > NUM_KILLS // 5
