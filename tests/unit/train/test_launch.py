"""The length of a run, by hand."""

from __future__ import annotations

import pytest

from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.train.launch import Epochs, count_steps


@pytest.mark.parametrize(
    ("num_items", "batch_size", "epochs", "every", "wanted"),
    [
        (1000, 100, 5.0, 1.0, Epochs(50, 10)),
        (1050, 100, 2.0, 1.0, Epochs(21, 10)),  # 2100 pairs; an epoch is 10.5 steps, rounded to even
        (1000, 100, 0.55, 0.25, Epochs(5, 2)),  # 550 pairs; 2.5 steps, rounded to even
        (100, 100, 0.5, 1.0, Epochs(1, 1)),  # half a batch is still a step
        (1000, 100, 1.0, 0.01, Epochs(10, 1)),
        (1000, 100, 1.0, 50.0, Epochs(10, 500)),  # after the last step alone
    ],
)
def test_steps_are_whole_batches(
    num_items: int, batch_size: int, epochs: float, every: float, wanted: Epochs
) -> None:
    section = TrainConfig(batch_size=batch_size, epochs=epochs, checkpoint_every_epochs=every)
    assert count_steps(num_items, section) == wanted


def test_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        count_steps(255, TrainConfig(batch_size=256))
    assert str(caught.value) == (
        "train.batch_size: 256 pairs a step, but the train split has 255 items; lower it"
    )
