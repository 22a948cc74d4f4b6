"""What the processes of `test_loss_ranks.py` run: the first step of a global batch, cut into their parts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from raysys.config.schema import FalseNegativesConfig, LoraConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import load_model
from raysys.train.batches import padded
from raysys.train.loss import gather_rows, local_pairs, loss_and_gradients
from raysys.train.loss.exchange import Exchange
from raysys.train.model import TrainState, make_train_state
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.model.parallel import clip_gradients, shard, whole_on_cpu
from raysys.train.step import backward, train_step, warm_up_ddp_buckets

NUM_PAIRS = 10  # of 2 ranks each has 5; of 3 the last one has two less than the others, of 4 as well
WAYS = {
    "default": FalseNegativesConfig(),
    "masked": FalseNegativesConfig(equal_titles="masked", same_group="positive"),
    "published": FalseNegativesConfig(equal_titles="negative", same_group="negative"),
    "similar": FalseNegativesConfig(photo_cosine_threshold=0.3, similar_photos_are="positive"),
}
IMAGE = ImagePreprocessing(size_px=16)
EXCHANGES: tuple[Exchange, ...] = ("ring", "gather")
MICRO_BATCHES = (None, 1)
HELD_NEAR = ("ddp", "fsdp")
TRAINED: dict[str, dict[str, Any]] = {
    "fsdp": {"parallel": "fsdp", "ema_decay": 0.5, "activation_checkpointing": True},
    "fsdp lora": {"parallel": "fsdp", "lora": LoraConfig(rank=2)},
    "fsdp bf16": {"parallel": "fsdp", "precision": "bf16"},
    "ddp": {"ema_decay": 0.5},
}
KEYS = (5, 6, 5, 7, 0, 8, 5, 9, 6, 10)  # equal ones on the same rank and on others; 0 is none
GROUPS = (1, 2, 3, 1, 4, 5, 6, 2, 7, 8)  # the first and the fourth show the same thing, and so on


@dataclass(frozen=True)
class Step:
    """The loss of the global batch and what every parameter feels."""

    loss: Tensor
    gradients: dict[str, Tensor]
    norm: Tensor | None = None


@dataclass(frozen=True)
class Trained:
    """Losses of steps in one go, those of the last ones again from a state, and both ways' weights."""

    losses: list[float]
    losses_again: list[float]
    weights: dict[str, Tensor]
    weights_again: dict[str, Tensor]


def run_rank(rank: int, folder: str, world_sizes: tuple[int, ...]) -> None:
    """Rank `rank` of one group after the other; rank 0 of a group leaves its steps in `folder`."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        meeting = f"file://{folder}/meeting-{world_size}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
        steps = all_steps(Path(folder), rank, world_size)
        trained = all_trained(Path(folder), rank, world_size)
        if rank == 0:
            torch.save((steps, trained), f"{folder}/steps-{world_size}.pt")
        dist.barrier()
        dist.destroy_process_group()


def run_compiled_rank(rank: int, folder: str, world_size: int) -> None:
    """Steps of sharded towers, compiled and not; rank 0 leaves both in `folder`."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    how = {"parallel": "fsdp", "activation_checkpointing": True}
    found = {
        is_compiled: trained(Path(folder), {**how, "compile": is_compiled}, rank, world_size)
        for is_compiled in (False, True)
    }
    if rank == 0:
        torch.save(found, f"{folder}/compiled.pt")
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
    for size in MICRO_BATCHES:
        default = WAYS["default"]
        steps[f"fsdp {size}"] = model_step(folder, default, size, rank, world_size, "fsdp")
        for parallel in HELD_NEAR:
            name = f"held {parallel} {size}"
            steps[name] = model_step(folder, default, size, rank, world_size, parallel, is_held=True)
    return steps


def all_trained(folder: Path, rank: int, world_size: int) -> dict[str, Trained]:
    """Three steps by the engine itself, and the last one again from the state after the second."""
    return {name: trained(folder, changes, rank, world_size) for name, changes in TRAINED.items()}


def trained(folder: Path, changes: dict[str, Any], rank: int, world_size: int) -> Trained:
    """As `raysys train` does it; alone, one worker has nobody to share with."""
    alone = {"parallel": "ddp"} if world_size == 1 else {}
    section = TrainConfig(
        **{
            "batch_size": NUM_PAIRS,
            "caption_weights": {"colour": 0.5},
            "learning_rate": 1e-3,
            **changes,
            **alone,
        }
    )
    part = part_of(global_batch(), rank, world_size)
    one = _engine(folder, section, rank, world_size)
    warm_up_ddp_buckets(one, part, section)
    losses = [train_step(one, part, section).loss for _ in range(2)]
    torch.save(one.state_dict(), folder / f"state-{rank}.pt")
    losses.append(train_step(one, part, section).loss)
    if world_size > 1:
        dist.barrier()
    again = _engine(folder, section, rank, world_size)
    again.load_state_dict(torch.load(folder / "state-0.pt", weights_only=True))
    warm_up_ddp_buckets(again, part, section)
    losses_again = [train_step(again, part, section).loss]
    return Trained(losses, losses_again, one.weights(), again.weights())


def _engine(folder: Path, section: TrainConfig, rank: int, world_size: int) -> TrainState:
    AcceleratorState._reset_state(reset_partial_state=True)
    # What Ray Train sets for its workers.
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in here.items()} if world_size > 1 else {})
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if section.precision == "bf16" else "no")
    assert accelerator.num_processes == world_size
    return make_train_state(str(folder / "tiny"), IMAGE, section, 8, accelerator)


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
    folder: Path,
    way: FalseNegativesConfig,
    micro_batch_size: int | None,
    rank: int,
    world_size: int,
    parallel: str = "ddp",
    *,
    is_held: bool = False,
) -> Step:
    """As `train_step` does it: DDP or FSDP over both towers; both average gradients over the ranks."""
    model = load_model(folder / "tiny")
    base = None
    if is_held:
        base = DualEncoder(load_model(folder / "tiny"), IMAGE)
        _move(model)
    towers: torch.nn.Module = DualEncoder(model, IMAGE)
    if world_size > 1:
        towers = (
            shard(DualEncoder(model, IMAGE), "fp32")
            if parallel == "fsdp"
            else DistributedDataParallel(towers)
        )
    section = TrainConfig(
        batch_size=NUM_PAIRS,
        false_negatives=way,
        caption_weights={"colour": 0.5},
        micro_batch_size=micro_batch_size,
    )
    part = part_of(global_batch(), rank, world_size)
    share = backward(towers, part, section, base)
    felt = {name: parameter.grad for name, parameter in model.named_parameters()}
    gradients = {name: gradient for name, gradient in felt.items() if gradient is not None}
    assert gradients.keys() == felt.keys()
    whole = whole_on_cpu(gradients, keep=True)
    return Step(_summed(share, world_size), whole, clip_gradients(model.parameters(), 1e9))


def _move(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


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
