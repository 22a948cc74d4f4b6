"""A SigLIP of a few thousand weights, batches for it, and its training state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing
from raysys.train.job import TrainJob
from raysys.train.model import TrainState, make_train_state
from tests.factories import TINY, tiny_checkpoint

IMAGE = ImagePreprocessing(size_px=16)
KEYS = torch.tensor([[5, 1], [6, 2], [5, 0], [0, 0], [7, 1], [8, 2]])  # the fourth sample was skipped
SIZE = TINY.model_copy(update={"num_layers": 2})


def build_small_model(folder: Path) -> Path:
    """Write the checkpoint and return its folder."""
    titles = [f"{colour} {kind}" for colour in ("red", "green", "blue") for kind in ("dress", "cup", "shoe")]
    tiny_checkpoint(folder, titles * 3, SIZE)
    return folder


def small_section(**changes: Any) -> TrainConfig:
    """Settings for `small_batch`."""
    return TrainConfig(
        **{"batch_size": 6, "caption_weights": {"colour": 0.5}, "learning_rate": 1e-3, **changes}
    )


def small_batch(seed: int = 3) -> dict[str, Tensor]:
    """Six pairs of a title and a colour."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixels": torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=generator),
        "tokens": torch.randint(3, 14, (6, 2, 6), generator=generator),
        "caption_keys": KEYS,
        "group_keys": torch.arange(6),
    }


def small_job(start: Path, run_uri: Path, section: TrainConfig) -> TrainJob:
    """A job that trains the model without a stream."""
    return TrainJob(
        run_name="small",
        run_uri=str(run_uri),
        spec_hash="f" * 64,
        start_uri=str(start),
        image=IMAGE,
        text=TextPreprocessing(6),
        section=section,
        tracking=TrackingConfig(),
        config={},
        shards=[],
        is_validated=False,
        score="r@5",
        max_bad_fraction=0.0,
        rows_per_block=1,
        seed=0,
        num_steps=20,
        checkpoint_steps=8,
    )


def small_state(start: Path, section: TrainConfig) -> TrainState:
    """The training state of one worker on a CPU."""
    return make_train_state(str(start), IMAGE, section, 8, Accelerator(cpu=True))


def exported_weights(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that a bundle of this state holds."""
    weights: dict[str, Tensor] = state_dict.get("weights", state_dict["model"])
    return weights


def perturb(model: torch.nn.Module) -> None:
    """Add noise to all weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
