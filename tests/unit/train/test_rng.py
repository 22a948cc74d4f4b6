"""What is drawn in a step depends on the seed, the step and the rank, and on nothing before."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from raysys.train.rng import seed_step


def drawn(seed: int, step: int, rank: int) -> tuple[float, float, float]:
    seed_step(seed, step, rank)
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_restarted_step_draws_the_same() -> None:
    first = drawn(7, 3, 1)
    drawn(7, 4, 1)
    assert drawn(7, 3, 1) == first


@pytest.mark.parametrize("other", [(8, 3, 1), (7, 4, 1), (7, 3, 2), (3, 7, 1)])
def test_another_step_rank_or_seed_draws_something_else(other: tuple[int, int, int]) -> None:
    assert not set(drawn(7, 3, 1)) & set(drawn(*other))
