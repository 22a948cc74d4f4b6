"""Twenty kills at random moments of a training: it ends in the weights of an undisturbed one, bit for bit."""

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
from tests.ray.test_train import BATCH, Run, copied, run_of, small
from tests.ray.two_nodes import Driver, TwoNodes, two_nodes

# Every kill costs a start of processes: a quarter of an hour.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
NUM_KILLS, NUM_STEPS, EVERY = 20, 150, 3
MOMENT_S = 0.3  # a kill falls at any time of a few steps, a checkpoint among them
TIMEOUT_S = 600  # for a start of processes on a busy machine


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def undisturbed(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, int]:
    """A run of two workers, and the number of training items."""
    root = tmp_path_factory.mktemp("undisturbed")
    with Driver(on(nodes, root, 100), root, stage="pack") as driver:
        driver.finish()
    num_items = artifacts.open_artifact(f"{root}/shards/train", ShardSetManifest).num_items
    config = on(nodes, root, num_items)
    with Driver(config, root) as driver:
        driver.finish()
    return run_of(config), num_items


def on(nodes: TwoNodes, root: Path, num_items: int) -> Config:
    """A training on both nodes, with many checkpoints and without measurements."""
    said: dict[str, Any] = small(root, num_items, num_steps=NUM_STEPS).model_dump()
    said["train"] |= {
        "checkpoint_every_epochs": EVERY * BATCH / num_items,
        "validation": {"max_items": 0},
        "max_failures": 10 * NUM_KILLS,
    }
    said |= {"ray": {"address": nodes.address}, "tracking": {"mode": "disabled"}}
    return Config.model_validate(said)


def test_twenty_kills_change_no_bit_of_the_weights(
    nodes: TwoNodes, undisturbed: tuple[Run, int], tmp_path: Path
) -> None:
    reference, num_items = undisturbed
    config = on(nodes, copied(Path(reference.config.root), tmp_path), num_items)
    run, dice = run_of(config), random.Random(20)
    kinds = ["worker"] * 9 + ["driver"] * 6 + ["node"] * 5
    dice.shuffle(kinds)
    killed: list[dict[str, Any]] = []
    driver, began = Driver(config, tmp_path), time.monotonic()
    try:
        for kind in kinds:
            # Further than any start before: every kill falls on a training that runs.
            step = until_step(run, recorded(run) + dice.randint(1, EVERY), driver)
            time.sleep(dice.random() * MOMENT_S)
            driver = kill(kind, nodes, driver, dice, (config, tmp_path))
            killed.append({"kind": kind, "step": step, "minutes": (time.monotonic() - began) / 60})
            (tmp_path / "kills.json").write_text(json.dumps(killed))
        driver.finish()
    finally:
        driver.kill()
    print(f"{len(killed)} kills in {(time.monotonic() - began) / 60:.1f} minutes: {killed}")
    assert len(killed) == NUM_KILLS
    assert run.losses == reference.losses
    assert run.weights == reference.weights


def until_step(run: Run, wanted: int, driver: Driver) -> int:
    """Wait until the run has recorded a step, and return the last one that it has."""
    driver.until(lambda: recorded(run) >= wanted, TIMEOUT_S)
    return recorded(run)


def recorded(run: Run) -> int:
    return max(run.losses, default=0)


def kill(
    kind: str, nodes: TwoNodes, driver: Driver, dice: random.Random, again: tuple[Config, Path]
) -> Driver:
    """Kill what `kind` names, and return the driver that goes on: another one if it was the driver."""
    if kind == "driver":
        driver.kill()
        while nodes.workers:  # they take a step or two before Ray ends them
            time.sleep(0.02)
        return Driver(*again)
    if kind == "node":
        nodes.kill_other()
        nodes.add_other()
    else:
        assert nodes.kill_a_worker(dice)
    return driver
