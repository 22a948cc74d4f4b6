"""Random numbers inside a step: drawn from (seed, step, rank), so that a restart draws the same.

Every step seeds torch (with CUDA), numpy and Python anew, which takes 0.2 ms. So no generator's state has
to be in a checkpoint, and a run that was disturbed draws what an undisturbed one would have: saved states
would be exact only for the world size that saved them, since a rank that is new has none.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make all that is drawn in the step after `step` steps depend on these three alone."""
    words = np.random.SeedSequence([seed, step, rank]).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))
