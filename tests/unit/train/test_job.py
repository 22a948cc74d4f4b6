"""The length of a run in steps, and the workers and blocks that Ray Train receives."""

from __future__ import annotations

import pytest

from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.train.job import run_schedule
from raysys.train.trainer import scaling_config, spare_blocks


@pytest.mark.parametrize(
    ("num_items", "batch_size", "epochs", "checkpoint_every_epochs", "schedule"),
    [
        (1000, 100, 5.0, 1.0, (50, 10)),
        (1050, 100, 2.0, 1.0, (21, 10)),  # 2100 pairs; an epoch is 10.5 steps, rounded to even
        (1000, 100, 0.55, 0.25, (5, 2)),  # 550 pairs; 2.5 steps, rounded to even
        (100, 100, 0.5, 1.0, (1, 1)),  # half a batch is rounded up to one step
        (1000, 100, 1.0, 0.01, (10, 1)),
        (1000, 100, 1.0, 50.0, (10, 500)),  # only after the last step
    ],
)
def test_steps_are_complete_batches(
    num_items: int, batch_size: int, epochs: float, checkpoint_every_epochs: float, schedule: tuple[int, int]
) -> None:
    section = TrainConfig(
        batch_size=batch_size, epochs=epochs, checkpoint_every_epochs=checkpoint_every_epochs
    )
    assert run_schedule(num_items, section) == schedule


def test_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        run_schedule(255, TrainConfig(batch_size=256))
    assert str(caught.value) == (
        "train.batch_size: 256 pairs a step, but the train split has 255 items; lower it"
    )


def test_elastic_run_gives_ray_a_range_of_workers() -> None:
    scaling = scaling_config(TrainConfig(workers=4, min_workers=2), {"CPU": 1.0})
    assert scaling.num_workers == (2, 4)
    # With 5 s Ray resized a healthy group again and again.
    assert vars(scaling)["elastic_resize_monitor_interval_s"] >= 60


@pytest.mark.parametrize("min_workers", [None, 4])
def test_run_that_is_not_elastic_requires_all_workers(min_workers: int | None) -> None:
    section = TrainConfig(workers=4, min_workers=min_workers)
    assert scaling_config(section, {"CPU": 1.0}).num_workers == 4
    assert spare_blocks(section) == 0


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_spare_blocks_complete_the_last_round_for_any_number_of_workers(workers: int) -> None:
    section = TrainConfig(workers=4, min_workers=1)
    for needed in range(1, 20):
        assert (needed + spare_blocks(section)) // workers * workers >= needed
