"""A node is lost in the middle of a training on two: another comes, or the run goes on with one worker."""

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
from raysys.encoder.start import fill_start, text_preprocessing
from raysys.shards.reader import BadSample, open_shard, read_shard, shards_of
from raysys.stream.order import rows_of, windows
from raysys.stream.skipped import read_skipped
from raysys.tracking.metrics_log import read_metrics
from tests.ray.growing import growing_cluster
from tests.ray.test_train import BATCH, NUM_STEPS, Run, copied, run_of, small
from tests.ray.training_driver import SLOT
from tests.ray.two_nodes import Driver, TwoNodes, two_nodes

# Three trainings on a cluster of their own, with nodes that start and die: minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def start(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A root with shards, of which one is half gone, and its number of training items."""
    root = tmp_path_factory.mktemp("start")
    with Driver(on(nodes, root, 100), root, stage="pack") as driver:
        driver.finish()
    num_items = artifacts.open_artifact(f"{root}/shards/train", ShardSetManifest).num_items
    make_start(on(nodes, root, num_items))
    path = Path(shards_of(f"{root}/shards/train")[1].uri)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    return root, num_items


def make_start(config: Config) -> None:
    """The starting encoder, which is made of whole shards alone."""
    shards = shards_of(specs.layout_of(config).shards("train"))
    titles = [stored.item.title for shard in shards for stored in read_shard(shard)]
    how = text_preprocessing(config.encoder)
    publish_bundle(specs.start_encoder(config), fill_start(config.encoder, lambda: titles), text=how)


def on(nodes: TwoNodes, root: Path, num_items: int, **train: Any) -> Config:
    """A training on the two nodes that bears with the damaged shard."""
    said = small(root, num_items).model_dump()
    said["train"] |= {"validation": {"max_items": 0}, **train}
    said |= {"ray": {"address": nodes.address}, "tracking": {"mode": "disabled"}}
    said["stream"] |= {"max_bad_fraction": 0.5}
    return Config.model_validate(said)


@pytest.fixture(scope="module")
def undisturbed(nodes: TwoNodes, start: tuple[Path, int]) -> Run:
    config = on(nodes, *start)
    with Driver(config, start[0]) as driver:
        driver.finish()
    return run_of(config)


def bad_positions(root: Path, num_items: int, num_steps: int = NUM_STEPS) -> list[int]:
    """Where the plan of the run has the samples that are gone."""
    config = small(root, num_items)
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


def test_run_whose_node_is_replaced_ends_in_the_same_weights(
    nodes: TwoNodes, start: tuple[Path, int], undisturbed: Run, tmp_path: Path
) -> None:
    config = on(nodes, copied(start[0], tmp_path), start[1])
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.until_checkpoint(run.uri)
        nodes.kill_other()
        assert not has_ended(run)
        nodes.add_other()
        driver.finish()
    assert run.losses == undisturbed.losses
    assert run.weights == undisturbed.weights


def test_elastic_run_goes_on_with_one_worker_and_every_sample(
    nodes: TwoNodes, start: tuple[Path, int], undisturbed: Run, tmp_path: Path
) -> None:
    config = on(nodes, copied(start[0], tmp_path), start[1], min_workers=1)
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.until_checkpoint(run.uri)
        nodes.kill_other()
        assert not has_ended(run)
        driver.finish()
    nodes.add_other()
    # Each worker holds every batch against the plan. What could not be used is known by its positions: all
    # of the plan, those of both workers before the loss and those of the last one after it.
    wanted = bad_positions(*start)
    assert [entry.position for entry in read_skipped(run.uri)] == wanted
    last = read_metrics(run.uri)[-1]
    assert (last["samples_seen"], last["samples_skipped"]) == (NUM_STEPS * BATCH, len(wanted))
    # Rounding alone: one sample less in one batch would be a change of percents.
    assert list(run.losses) == list(undisturbed.losses)
    assert run.losses == pytest.approx(undisturbed.losses, rel=1e-5)


def has_ended(run: Run) -> bool:
    return max(run.losses, default=0) == NUM_STEPS


MANY_STEPS = 600  # a run that is still going when a node comes back
NEVER = {"checkpoint_every_epochs": 1e6, "checkpoint_every_minutes": None}


def many(nodes: TwoNodes, root: Path, num_items: int, **train: Any) -> Config:
    """A training of `MANY_STEPS`."""
    config = on(nodes, root, num_items, **train)
    longer = config.train.model_copy(update={"epochs": (MANY_STEPS + 0.5) * BATCH / num_items})
    return config.model_copy(update={"train": longer})


@pytest.fixture(scope="module")
def many_undisturbed(
    nodes: TwoNodes, start: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    root = copied(start[0], tmp_path_factory.mktemp("many"))
    config = many(nodes, root, start[1], **NEVER)
    with Driver(config, root) as driver:
        driver.finish()
    return run_of(config)


def test_checkpoint_is_taken_before_a_node_is_taken_away(
    nodes: TwoNodes, start: tuple[Path, int], many_undisturbed: Run, tmp_path: Path
) -> None:
    # No failure is allowed: that a node which was said to go has gone is none.
    config = many(nodes, copied(start[0], tmp_path), start[1], max_failures=0, **NEVER)
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.until(lambda: bool(run.losses))
        nodes.warn_other(30)
        driver.until_checkpoint(run.uri)  # no other one is planned
        driver.until(nodes.is_other_gone)
        assert not has_ended(run)
        nodes.kill_other()  # what is left of it
        nodes.add_other()
        driver.finish()
        assert "a node will be taken away, with rank" in driver.said
    assert run.losses == many_undisturbed.losses
    assert run.weights == many_undisturbed.weights


def test_elastic_run_grows_back_when_a_node_comes(
    nodes: TwoNodes, start: tuple[Path, int], many_undisturbed: Run, tmp_path: Path
) -> None:
    config = many(nodes, copied(start[0], tmp_path), start[1], min_workers=1)
    run = run_of(config)
    with Driver(config, tmp_path) as driver:
        driver.until_checkpoint(run.uri)
        nodes.kill_other()
        at_loss = max(run.losses)
        driver.until(lambda: max(run.losses) > at_loss and len(nodes.workers) == 1)
        nodes.add_other()
        driver.until(lambda: len(nodes.workers) == 2)
        assert not has_ended(run)
        driver.finish()
    assert [entry.position for entry in read_skipped(run.uri)] == bad_positions(*start, MANY_STEPS)
    assert list(run.losses) == list(many_undisturbed.losses)
    # Rounding of sums over one worker and over two grows from step to step.
    first = range(1, 51)
    assert [run.losses[step] for step in first] == pytest.approx(
        [many_undisturbed.losses[step] for step in first], rel=1e-3
    )


def test_training_waits_for_the_node_that_it_asks_for(
    nodes: TwoNodes, start: tuple[Path, int], undisturbed: Run, tmp_path: Path
) -> None:
    config = on(nodes, copied(start[0], tmp_path), start[1])
    run = run_of(config)
    with growing_cluster(head_cpus=1, node_resources={"CPU": 4, SLOT: 2}) as address:
        elsewhere = config.model_copy(update={"ray": RayConfig(address=address)})
        with Driver(elsewhere, tmp_path) as driver:
            driver.finish()
    assert "train.workers: 2 workers with 1 CPU each; the cluster has 1 node with 1 CPUs" in driver.said
    assert run.weights == undisturbed.weights
