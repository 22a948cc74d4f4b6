"""Random numbers of a step depend on the seed, the step and the rank only."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from raysys.train.rng import seed_step


def draw(seed: int, step: int, rank: int) -> tuple[float, float, float]:
    seed_step(seed, step, rank)
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_restarted_step_draws_the_same_numbers() -> None:
    first = draw(7, 3, 1)
    draw(7, 4, 1)
    assert draw(7, 3, 1) == first


@pytest.mark.parametrize("other", [(8, 3, 1), (7, 4, 1), (7, 3, 2), (3, 7, 1)])
def test_another_seed_step_or_rank_draws_other_numbers(other: tuple[int, int, int]) -> None:
    assert not set(draw(7, 3, 1)) & set(draw(*other))
