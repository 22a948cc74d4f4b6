"""What fits into a device's memory, and the settings that need less."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from raysys.config.schema import FalseNegativesConfig, TrainConfig
from raysys.train.loss import local_pairs, loss_and_gradients
from raysys.train.memory import (
    batches_bytes,
    largest_micro_batch,
    loss_bytes,
    memory_advice,
)
from tests.unit.train.live_memory import LiveBytes

GB = 10**9


def linear(per_pair: float, capacity: float, sizes: list[int]) -> Callable[[int], float]:
    """Free memory of a device where a pair takes `per_pair`; `sizes` collects what is tried."""

    def free_bytes(size: int) -> float:
        sizes.append(size)
        used = per_pair * size
        return capacity - used if used <= 1.1 * capacity else -math.inf

    return free_bytes


@pytest.mark.parametrize(
    ("share", "capacity", "expected", "tried"),
    [
        (1024, 1024.0, 1024, [16, 64, 1024]),  # all of it fits, exactly
        (1024, 1023.0, 512, [16, 64, 512]),
        (1024, 60.0, 32, [16, 64, 32]),
        (1024, 31.0, 16, [16, 64, 32]),
        (1024, 1.5, 1, [16, 64, 32, 8, 4, 2, 1]),
        (1024, 0.5, None, [16, 64, 32, 8, 4, 2, 1]),
        (704, 100.0, 88, [16, 64, 88]),  # of an elastic run: 704 = 64 x 11
        (7, 3.0, 1, [7, 1]),
        (1, 1.0, 1, [1]),
    ],
)
def test_largest_micro_batch_is_predicted_from_two_small_ones_and_measured(
    share: int, capacity: float, expected: int | None, tried: list[int]
) -> None:
    sizes: list[int] = []
    assert largest_micro_batch(share, linear(1.0, capacity, sizes)) == expected
    assert sizes == tried


def test_micro_batch_is_halved_if_memory_grows_faster_than_predicted() -> None:
    sizes: list[int] = []

    def free_bytes(size: int) -> float:
        sizes.append(size)
        return 1000.0 - size - (0.01 * size**2 if size > 100 else 0)

    assert largest_micro_batch(1024, free_bytes) == 256  # 1000 - 256 - 655 = 89
    assert sizes == [16, 64, 512, 256]


@pytest.mark.parametrize(
    ("rows", "device_gb", "fit"),
    [(1024, 80, True), (32768, 80, True), (65536, 80, False), (32768, 24, False)],
)
def test_batches_stay_on_a_device_that_has_four_times_their_memory(
    rows: int, device_gb: int, fit: bool
) -> None:
    assert batches_bytes(rows, 256, device_gb * GB) == (3 * rows * 196_608 if fit else 0)


def test_loss_takes_no_more_than_its_arithmetic() -> None:
    rows, dimensions, section = 256, 96, TrainConfig(batch_size=256, loss_tile_rows=128)
    vectors = torch.nn.functional.normalize(torch.randn(rows, dimensions), dim=1)
    keys, groups = torch.arange(1, rows + 1), torch.arange(rows)
    pairs = local_pairs(vectors, vectors, keys, groups, first_row=0, all_keys=keys, all_groups=groups)
    with LiveBytes() as live:
        loss_and_gradients(
            pairs, FalseNegativesConfig(), scale=torch.tensor(10.0), bias=torch.tensor(-10.0),
            num_images=rows, tile_rows=section.loss_tile_rows,
        )  # fmt: skip
    bound = loss_bytes(section, rows=rows, workers=1, dimensions=dimensions)
    assert 0.4 * bound < live.peak < bound


def test_memory_advice_names_settings_with_their_values() -> None:
    assert memory_advice(TrainConfig(batch_size=64, workers=4), 4, micro_batch_size=16) == (
        "lower train.micro_batch_size (now 16), or set train.on_out_of_memory=halve (now stop), "
        "or set train.activation_checkpointing=full (now none), or set train.parallel=fsdp (now ddp)"
    )


def test_memory_advice_omits_settings_that_cannot_help() -> None:
    section = TrainConfig(batch_size=4, workers=4, activation_checkpointing="full", parallel="fsdp")
    assert memory_advice(section, 4, micro_batch_size=1) == "use a GPU with more memory, or a smaller encoder"
