"""A SigLIP of a few thousand weights, batches for it, and its training state."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from raysys.config.schema import TrackingConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.text import TextPreprocessing, caption_keys
from raysys.evaluate.pairs import PackedPairs, PairSource
from raysys.evaluate.retrieval import PairEmbeddings
from raysys.evaluate.validation import Validation
from raysys.shards.reader import Item
from raysys.train.job import TrainJob
from raysys.train.model import TrainState, make_train_state
from tests.factories import TINY, tiny_checkpoint, write_shards

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


def small_job(
    folder: Path, start: Path, section: TrainConfig, validation: Validation | None = None, **changes: Any
) -> TrainJob:
    """A run in `folder` of a model of `build_small_model`; a checkpoint every 8 of 24 steps."""
    fields: dict[str, Any] = {
        "run_name": "small",
        "run_uri": str(folder),
        "spec_hash": "f" * 64,
        "start_uri": str(start),
        "image": IMAGE,
        "text": TextPreprocessing(TINY.max_length),
        "section": section,
        "tracking": TrackingConfig(),
        "config": {},
        "shards": [],
        "validation": validation or Validation(PackedPairs([], []), [], None, "r@5", 0),
        "sweep": None,
        "max_bad_fraction": 0.0,
        "rows_per_block": 1,
        "seed": 0,
        "num_steps": 24,
        "checkpoint_steps": 8,
    }
    return TrainJob(**{**fields, **changes})


def plain_embeddings(encoder: SiglipEncoder, source: PairSource) -> PairEmbeddings:
    """What the encoder of a bundle gives for the pairs, as in a program without workers."""
    photos, titles = zip(*source.read(0, source.num_pairs), strict=True)
    return PairEmbeddings(
        torch.from_numpy(encoder.embed_photos(photos)),
        torch.from_numpy(encoder.embed_titles(titles)),
        torch.from_numpy(caption_keys(titles, encoder.text)),
    )


def noise_photo(rng: np.random.Generator) -> bytes:
    """A photo that is not equally similar to two titles, so that rounding does not change a rank."""
    encoded = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def write_validation_pairs(folder: Path) -> Validation:
    """A validation of nine pairs, some with equal titles, in three shards; its score is R@5."""
    rng = np.random.default_rng(4)
    # Short titles: the tokens of longer ones are cut off, and then different titles are equally similar.
    titles = ("red", "cup", "red", "shoe", "blue", "shoe", "dress", "green", "red")
    items = [Item(f"i{n}", title, noise_photo(rng)) for n, title in enumerate(titles)]
    shards = write_shards(folder, items, items_per_shard=4)
    return Validation(PackedPairs(shards, range(9)), [item.item_id for item in items], None, "r@5", 0)


def forget_compiled() -> None:
    """Forget what torch.compile has compiled and counted in this process."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
