"""A training on two nodes loses one: the node is replaced, or the run continues with one worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysys import artifacts
from raysys.artifacts import ShardSetManifest, specs
from raysys.config import Config
from raysys.config.schema import RayConfig
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.start import text_preprocessing, write_start
from raysys.shards.reader import BadSample, open_shard, read_shard, shards_of
from raysys.stream.order import rows_of, windows
from raysys.stream.skipped import read_skipped
from raysys.tracking.metrics_log import read_metrics
from tests.ray.growing import growing_cluster
from tests.ray.training_driver import SLOT
from tests.ray.training_runs import BATCH, NUM_STEPS, Run, copy_root, run_of, small_config
from tests.ray.two_nodes import Driver, TwoNodes, two_nodes

# Several trainings on a separate cluster whose nodes start and die: minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def start(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A root with shards, one of them damaged, and its number of training items."""
    root = tmp_path_factory.mktemp("start")
    with Driver(config_on(nodes, root, 100), root, stage="pack") as driver:
        driver.finish()
    num_items = artifacts.open_artifact(f"{root}/shards/train", ShardSetManifest).num_items
    publish_start(config_on(nodes, root, num_items))
    path = Path(shards_of(f"{root}/shards/train")[1].uri)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    return root, num_items


def publish_start(config: Config) -> None:
    """Publish the start encoder, which needs undamaged shards."""
    shards = shards_of(specs.layout_of(config).shards("train"))
    titles = [item.title for shard in shards for item in read_shard(shard)]
    text = text_preprocessing(config.encoder)
    publish_bundle(
        specs.start_encoder(config), lambda folder: write_start(folder, config.encoder, titles), text=text
    )


def config_on(nodes: TwoNodes, root: Path, num_items: int, **train: Any) -> Config:
    """A training on the two nodes that tolerates the damaged shard."""
    settings = small_config(root, num_items).model_dump()
    settings["train"] |= {"validation": {"max_items": 0}, **train}
    settings |= {"ray": {"address": nodes.address}, "tracking": {"mode": "disabled"}}
    settings["stream"] |= {"max_bad_fraction": 0.5}
    return Config.model_validate(settings)


@pytest.fixture(scope="module")
def uninterrupted(nodes: TwoNodes, start: tuple[Path, int]) -> Run:
    config = config_on(nodes, *start)
    with Driver(config, start[0]) as driver:
        driver.finish()
    return run_of(config)


def bad_positions(root: Path, num_items: int, num_steps: int = NUM_STEPS) -> list[int]:
    """The stream positions of the damaged samples."""
    config = small_config(root, num_items)
    shards = shards_of(specs.layout_of(config).shards("train"))
    is_bad = []
    for shard in shards:
        with open_shard(shard) as samples:
            is_bad.append([isinstance(samples.read(n), BadSample) for n in range(shard.num_items)])
    positions: list[int] = []
    plan = windows(
        [shard.num_items for shard in shards],
        seed=config.encoder.seed,
        shards_per_window=config.stream.shuffle_window_shards,
        start=0,
        stop=num_steps * BATCH,
    )
    for window in plan:
        stored = [bad for number in window.shards for bad in is_bad[number]]
        rows = rows_of(window, len(stored)).tolist()
        positions += [position for position, row in enumerate(rows, window.position) if stored[row]]
    return positions


def test_run_with_a_replaced_node_ends_with_the_same_weights(
    nodes: TwoNodes, start: tuple[Path, int], uninterrupted: Run, tmp_path: Path
) -> None:
    config = config_on(nodes, copy_root(start[0], tmp_path), start[1])
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.wait_for_checkpoint(run.uri)
        nodes.kill_second()
        assert not has_ended(run)
        nodes.add_second()
        driver.finish()
    assert run.losses == uninterrupted.losses
    assert run.weights == uninterrupted.weights


def test_elastic_run_continues_with_one_worker_and_every_sample(
    nodes: TwoNodes, start: tuple[Path, int], uninterrupted: Run, tmp_path: Path
) -> None:
    config = config_on(nodes, copy_root(start[0], tmp_path), start[1], min_workers=1)
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.wait_for_checkpoint(run.uri)
        nodes.kill_second()
        assert not has_ended(run)
        driver.finish()
    nodes.add_second()
    # Each worker checks every batch against the planned positions. The skipped positions are all the damaged
    # ones of the plan: those of both workers before the loss, and those of the remaining one after it.
    expected = bad_positions(*start)
    assert [entry.position for entry in read_skipped(run.uri)] == expected
    last = read_metrics(run.uri)[-1]
    assert (last["samples_seen"], last["samples_skipped"]) == (NUM_STEPS * BATCH, len(expected))
    # Only rounding differs: one sample less in one batch would change the loss by percents.
    assert list(run.losses) == list(uninterrupted.losses)
    assert run.losses == pytest.approx(uninterrupted.losses, rel=1e-5)


def has_ended(run: Run, num_steps: int = NUM_STEPS) -> bool:
    return max(run.losses, default=0) >= num_steps


MANY_STEPS = 600  # the run is still training when a node comes back
NO_CHECKPOINTS = {"checkpoint_every_epochs": 1e6, "checkpoint_every_minutes": None}


def long_config(nodes: TwoNodes, root: Path, num_items: int, **train: Any) -> Config:
    """A training of `MANY_STEPS`."""
    config = config_on(nodes, root, num_items, **train)
    section = config.train.model_copy(update={"epochs": (MANY_STEPS + 0.5) * BATCH / num_items})
    return config.model_copy(update={"train": section})


@pytest.fixture(scope="module")
def long_uninterrupted(
    nodes: TwoNodes, start: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    root = copy_root(start[0], tmp_path_factory.mktemp("many"))
    config = long_config(nodes, root, start[1], **NO_CHECKPOINTS)
    with Driver(config, root) as driver:
        driver.finish()
    return run_of(config)


def test_checkpoint_is_saved_before_a_node_is_preempted(
    nodes: TwoNodes, start: tuple[Path, int], long_uninterrupted: Run, tmp_path: Path
) -> None:
    # No failure is allowed: the loss of a node after its preemption notice is not counted as one.
    config = long_config(nodes, copy_root(start[0], tmp_path), start[1], max_failures=0, **NO_CHECKPOINTS)
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.wait_until(lambda: bool(run.losses))
        nodes.announce_preemption(30)
        driver.wait_for_checkpoint(run.uri)  # no other checkpoint is scheduled
        driver.wait_until(nodes.has_second_ended)
        assert not has_ended(run, MANY_STEPS)
        nodes.kill_second()  # its remaining processes
        nodes.add_second()
        driver.finish()
        assert "will be preempted; a checkpoint is saved now" in driver.output
    assert run.losses == long_uninterrupted.losses
    assert run.weights == long_uninterrupted.weights


def test_elastic_run_grows_back_when_a_node_joins(
    nodes: TwoNodes, start: tuple[Path, int], long_uninterrupted: Run, tmp_path: Path
) -> None:
    config = long_config(nodes, copy_root(start[0], tmp_path), start[1], min_workers=1)
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.wait_for_checkpoint(run.uri)
        nodes.kill_second()
        step_at_kill = max(run.losses)
        driver.wait_until(lambda: max(run.losses) > step_at_kill and len(nodes.workers) == 1)
        nodes.add_second()
        driver.wait_until(lambda: len(nodes.workers) == 2)
        assert not has_ended(run, MANY_STEPS)
        driver.finish()
    assert [entry.position for entry in read_skipped(run.uri)] == bad_positions(*start, MANY_STEPS)
    assert list(run.losses) == list(long_uninterrupted.losses)
    # The rounding difference between one and two workers grows with every step.
    first = range(1, 51)
    assert [run.losses[step] for step in first] == pytest.approx(
        [long_uninterrupted.losses[step] for step in first], rel=1e-3
    )


def test_training_waits_for_the_node_that_it_requests(
    nodes: TwoNodes, start: tuple[Path, int], uninterrupted: Run, tmp_path: Path
) -> None:
    config = config_on(nodes, copy_root(start[0], tmp_path), start[1])
    run = run_of(config)
    with growing_cluster(head_cpus=1, node_resources={"CPU": 4, SLOT: 2}) as address:
        on_growing = config.model_copy(update={"ray": RayConfig(address=address)})
        with Driver(on_growing, tmp_path) as driver:
            driver.finish()
    assert (
        "train  waiting up to 300 s for nodes: 2 training workers (train.workers) with 1 CPU" in driver.output
    )
    assert "need 4 CPUs together; the cluster has 1 node with 1 CPU and 0 GPUs" in driver.output
    assert run.weights == uninterrupted.weights
