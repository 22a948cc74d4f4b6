"""What the processes of `test_loss_ranks.py` run: the first step of a global batch, cut into their parts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from raysys.config.schema import FalseNegativesConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import load_model
from raysys.train.loss import gather_rows, local_pairs, loss_and_gradients
from raysys.train.loss.exchange import Exchange
from raysys.train.padding import padded
from raysys.train.step import backward
from raysys.train.towers import TwoTowers

NUM_PAIRS = 10  # of 2 ranks each has 5; of 3 the last one has two less than the others, of 4 as well
WAYS = {
    "default": FalseNegativesConfig(),
    "masked": FalseNegativesConfig(equal_titles="masked", same_group="positive"),
    "published": FalseNegativesConfig(equal_titles="negative", same_group="negative"),
    "similar": FalseNegativesConfig(similar_photos=0.3, similar_photos_are="positive"),
}
EXCHANGES: tuple[Exchange, ...] = ("ring", "gather")
MICRO_BATCHES = (None, 1)
KEYS = (5, 6, 5, 7, 0, 8, 5, 9, 6, 10)  # equal ones on the same rank and on others; 0 is none
GROUPS = (1, 2, 3, 1, 4, 5, 6, 2, 7, 8)  # the first and the fourth show the same thing, and so on


@dataclass(frozen=True)
class Step:
    """The loss of the global batch and what every parameter feels."""

    loss: Tensor
    gradients: dict[str, Tensor]


def run_rank(rank: int, folder: str, world_sizes: tuple[int, ...]) -> None:
    """Rank `rank` of one group after the other; rank 0 of a group leaves its steps in `folder`."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        meeting = f"file://{folder}/meeting-{world_size}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
        steps = all_steps(Path(folder), rank, world_size)
        if rank == 0:
            torch.save(steps, f"{folder}/steps-{world_size}.pt")
        dist.barrier()
        dist.destroy_process_group()


def all_steps(folder: Path, rank: int, world_size: int) -> dict[str, Step]:
    """The step of the pure loss and of the model, for each way to treat false negatives and to get there."""
    steps = {}
    for name, way in WAYS.items():
        for exchange in EXCHANGES:
            steps[f"loss {name} {exchange}"] = loss_step(way, exchange, rank, world_size)
        for size in MICRO_BATCHES:
            steps[f"model {name} {size}"] = model_step(folder, way, size, rank, world_size)
    return steps


def loss_step(way: FalseNegativesConfig, exchange: Exchange, rank: int, world_size: int) -> Step:
    """In float64, on unit vectors; gradients by vectors are put together from those of all ranks."""
    generator = torch.Generator().manual_seed(3)
    images, captions = (
        torch.nn.functional.normalize(
            torch.randn(NUM_PAIRS, 8, dtype=torch.float64, generator=generator), dim=-1
        )
        for _ in range(2)
    )
    rows = {
        "images": images,
        "captions": captions,
        "caption_keys": torch.tensor(KEYS),
        "group_keys": torch.tensor(GROUPS),
        "stream_position": torch.arange(NUM_PAIRS),
    }
    part = part_of(rows, rank, world_size)
    keys, groups = part["caption_keys"], part["group_keys"]
    scale, bias = (torch.tensor(value, dtype=torch.float64) for value in (5.0, -3.0))
    own = local_pairs(
        part["images"],
        part["captions"],
        keys,
        groups,
        first_row=rank * len(keys),
        all_keys=gather_rows(keys),
        all_groups=gather_rows(groups),
    )
    found = loss_and_gradients(
        own, way, scale=scale, bias=bias, num_images=NUM_PAIRS, tile_rows=2, exchange=exchange
    )
    return Step(
        _summed(found.loss, world_size),
        {
            "images": _of_samples(found.images),
            "captions": _of_samples(found.captions),
            "scale": _summed(found.scale, world_size),
            "bias": _summed(found.bias, world_size),
        },
    )


def model_step(
    folder: Path, way: FalseNegativesConfig, micro_batch_size: int | None, rank: int, world_size: int
) -> Step:
    """As `train_step` does it: DDP over both towers, which averages gradients over the ranks."""
    model = load_model(folder / "tiny")
    towers: torch.nn.Module = TwoTowers(model, ImagePreprocessing(size_px=16))
    if world_size > 1:
        towers = DistributedDataParallel(towers)
    section = TrainConfig(
        batch_size=NUM_PAIRS,
        false_negatives=way,
        caption_weights={"colour": 0.5},
        micro_batch_size=micro_batch_size,
    )
    part = part_of(global_batch(), rank, world_size)
    no_sync = towers.no_sync if isinstance(towers, DistributedDataParallel) else nullcontext
    share = backward(towers, part, section, no_sync)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return Step(_summed(share, world_size), gradients)


def global_batch() -> dict[str, Tensor]:
    """Noise as photos, titles that repeat, and a colour for some."""
    rng = np.random.default_rng(5)
    of_title = {key: rng.integers(3, 14, 6) for key in sorted(set(KEYS))}
    of_colour = {colour: rng.integers(3, 14, 6) for colour in range(3)}
    colours = [number % 3 for number in range(NUM_PAIRS)]
    tokens = [[of_title[key], of_colour[colour]] for key, colour in zip(KEYS, colours, strict=True)]
    return {
        "pixels": torch.from_numpy(rng.integers(0, 256, (NUM_PAIRS, 16, 16, 3), dtype=np.uint8)),
        "tokens": torch.from_numpy(np.array(tokens)),
        "caption_keys": torch.tensor(list(zip(KEYS, colours, strict=True))),
        "group_keys": torch.tensor(GROUPS),
        "stream_position": torch.arange(NUM_PAIRS),
    }


def part_of(rows: dict[str, Tensor], rank: int, world_size: int) -> dict[str, Tensor]:
    """A rank's part of a global batch, padded to the largest of them; only the last one is smaller."""
    size = -(-NUM_PAIRS // world_size)
    here = slice(rank * size, (rank + 1) * size)
    return padded({name: values[here] for name, values in rows.items()}, size, rank)


def _of_samples(local: Tensor) -> Tensor:
    """What the samples of all ranks feel; padding, behind them, feels nothing."""
    felt = gather_rows(local)
    assert not felt[NUM_PAIRS:].any()
    return felt[:NUM_PAIRS]


def _summed(value: Tensor, world_size: int) -> Tensor:
    if world_size > 1:
        dist.all_reduce(value)
    return value
