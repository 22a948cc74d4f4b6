"""Twenty kills at random times: the run ends with the weights of an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysys import artifacts
from raysys.artifacts import ShardSetManifest
from raysys.config import Config
from tests.ray.training_runs import BATCH, Run, copy_root, run_of, small_config
from tests.ray.two_nodes import Driver, TwoNodes, two_nodes

# Every kill restarts processes: a quarter of an hour in all.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
NUM_KILLS, NUM_STEPS, EVERY = 20, 150, 3
MAX_DELAY_S = 0.3  # covers a few steps and a checkpoint
TIMEOUT_S = 600  # for processes that start on a busy machine


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def uninterrupted(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, int]:
    """A run of two workers without interruption, and the number of training items."""
    root = tmp_path_factory.mktemp("uninterrupted")
    with Driver(config_on(nodes, root, 100), root, stage="pack") as driver:
        driver.finish()
    num_items = artifacts.open_artifact(f"{root}/shards/train", ShardSetManifest).num_items
    config = config_on(nodes, root, num_items)
    with Driver(config, root) as driver:
        driver.finish()
    return run_of(config), num_items


def config_on(nodes: TwoNodes, root: Path, num_items: int) -> Config:
    """A training on both nodes, with many checkpoints and without validation."""
    settings: dict[str, Any] = small_config(root, num_items, num_steps=NUM_STEPS).model_dump()
    settings["train"] |= {
        "checkpoint_every_epochs": EVERY * BATCH / num_items,
        "validation": {"max_items": 0},
        "max_failures": 10 * NUM_KILLS,
    }
    settings |= {"ray": {"address": nodes.address}, "tracking": {"mode": "disabled"}}
    return Config.model_validate(settings)


def test_twenty_kills_change_no_bit_of_the_weights(
    nodes: TwoNodes, uninterrupted: tuple[Run, int], tmp_path: Path
) -> None:
    reference, num_items = uninterrupted
    config = config_on(nodes, copy_root(Path(reference.config.root), tmp_path), num_items)
    run, rng = run_of(config), random.Random(20)
    kinds = ["worker"] * 9 + ["driver"] * 6 + ["node"] * 5
    rng.shuffle(kinds)
    killed: list[dict[str, Any]] = []
    driver, started = Driver(config, tmp_path), time.monotonic()
    try:
        for kind in kinds:
            # Beyond the last recorded step, so that every kill hits a training in progress.
            step = wait_for_step(run, last_step(run) + rng.randint(1, EVERY), driver)
            time.sleep(rng.random() * MAX_DELAY_S)
            driver = kill(kind, nodes, driver, rng, (config, tmp_path))
            killed.append({"kind": kind, "step": step, "minutes": (time.monotonic() - started) / 60})
            (tmp_path / "kills.json").write_text(json.dumps(killed))
        driver.finish()
    finally:
        driver.kill()
    print(f"{len(killed)} kills in {(time.monotonic() - started) / 60:.1f} minutes: {killed}")
    assert len(killed) == NUM_KILLS
    assert run.losses == reference.losses
    assert run.weights == reference.weights


def wait_for_step(run: Run, step: int, driver: Driver) -> int:
    """Wait until the run has recorded a step, and return its last recorded step."""
    driver.wait_until(lambda: last_step(run) >= step, TIMEOUT_S)
    return last_step(run)


def last_step(run: Run) -> int:
    return max(run.losses, default=0)


def kill(
    kind: str, nodes: TwoNodes, driver: Driver, rng: random.Random, arguments: tuple[Config, Path]
) -> Driver:
    """Kill a worker, a node or the driver, and return the driver that continues: a new one if it was killed."""
    if kind == "driver":
        driver.kill()
        while nodes.workers:  # Ray ends them after a step or two
            time.sleep(0.02)
        return Driver(*arguments)
    if kind == "node":
        nodes.kill_second()
        nodes.add_second()
    else:
        assert nodes.kill_a_worker(rng)
    return driver
