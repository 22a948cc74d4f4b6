"""The processes of `test_loss_ranks.py`: first steps and short trainings, each rank with its part of a batch."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from numpy import ndarray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from raysys.config.schema import FalseNegativesConfig, LoraConfig, TeacherConfig, TrainConfig
from raysys.encoder.siglip import load_model
from raysys.train.batches import joined
from raysys.train.loss import gather_rows, local_pairs, loss_and_gradients, tiled_loss
from raysys.train.memory import DeviceMemory
from raysys.train.micro_batch import MicroBatch
from raysys.train.model import TrainState, make_train_state, open_accelerator
from raysys.train.model.distributed import clip_grad_norm, full_tensors_on_cpu, shard
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward, train_step, warm_up_ddp_buckets
from tests.unit.train.small_model import IMAGE, exported_weights, perturb, small_job

NUM_PAIRS = 10  # 5 for each of 2 ranks; with 3 or 4 ranks the last one has two fewer than the others
POLICIES = {
    "default": FalseNegativesConfig(),
    "masked": FalseNegativesConfig(equal_titles="masked", same_group="positive"),
    "published": FalseNegativesConfig(equal_titles="negative", same_group="negative"),
    "similar": FalseNegativesConfig(photo_cosine_threshold=0.3, similar_photos_are="positive"),
}
MICRO_BATCHES = (None, 1)
PARALLEL = ("ddp", "fsdp")
TEACHER = TeacherConfig(embeddings="unused", weight=3.0)
TEACHER_DIMENSIONS = 4
TRAININGS: dict[str, dict[str, Any]] = {
    "fsdp": {"parallel": "fsdp", "ema_decay": 0.5, "activation_checkpointing": "full"},
    "fsdp lora": {"parallel": "fsdp", "lora": LoraConfig(rank=2)},
    "fsdp bf16": {"parallel": "fsdp", "precision": "bf16"},
    "ddp": {"ema_decay": 0.5},
    "ddp bf16": {"precision": "bf16"},
    "ddp teacher": {"teacher": TEACHER, "ema_decay": 0.5},
}
KEYS = (5, 6, 5, 7, 0, 8, 5, 9, 6, 10)  # equal keys on one rank and across ranks; 0 is a missing caption
GROUPS = (1, 2, 3, 1, 4, 5, 6, 2, 7, 8)  # two groups have two rows each


@dataclass(frozen=True)
class FirstStep:
    """The loss of the global batch, and the gradients of all parameters with their norm."""

    loss: Tensor
    gradients: dict[str, Tensor]
    norm: Tensor | None = None


@dataclass(frozen=True)
class Training:
    """Losses and weights of an uninterrupted training, and of one restored from the state after two steps."""

    losses: list[float]
    restored_losses: list[float]
    weights: dict[str, Tensor]
    restored_weights: dict[str, Tensor]


class RankMemory(DeviceMemory):
    """A device on which everything fits, but on the last of several ranks nothing the first time."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.total_bytes = 10**9
        self._is_short = rank == world_size - 1 > 0

    def free_bytes(self, work: Callable[[], None]) -> float:
        work()
        free, self._is_short = -1.0 if self._is_short else 1e9, False
        return free


def run_rank(rank: int, folder: str, world_sizes: tuple[int, ...]) -> None:
    """Run rank `rank` in one process group after another; rank 0 of a group writes the results to `folder`."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank >= world_size:
            continue
        rendezvous = f"file://{folder}/rendezvous-{world_size}"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
        steps = first_steps(Path(folder), rank, world_size)
        trainings = all_trainings(Path(folder), rank, world_size)
        if rank == 0:
            torch.save((steps, trainings), f"{folder}/steps-{world_size}.pt")
        dist.barrier()
        dist.destroy_process_group()


def run_compiled_rank(rank: int, folder: str, world_size: int) -> None:
    """Train sharded towers, compiled and not compiled; rank 0 writes both results to `folder`."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    changes = {"parallel": "fsdp", "activation_checkpointing": "full"}
    trainings = {
        is_compiled: train(Path(folder), {**changes, "compile": is_compiled}, rank, world_size)
        for is_compiled in (False, True)
    }
    if rank == 0:
        torch.save(trainings, f"{folder}/compiled.pt")
    dist.barrier()
    dist.destroy_process_group()


def check_compiled_tiles(_: int) -> None:
    """Compiled tiles of the loss equal the plain ones and compile four times, for full and smaller tiles."""
    generator = torch.Generator().manual_seed(3)
    images, captions = (
        torch.nn.functional.normalize(torch.randn(70, 8, generator=generator), dim=-1) for _ in range(2)
    )
    keys = torch.arange(70) % 30
    pairs = local_pairs(images, captions, keys, keys, first_row=0, all_keys=keys, all_groups=keys)
    scale, bias = torch.tensor(5.0), torch.tensor(-3.0)
    for backend in (None, "inductor", "inductor"):
        result = tiled_loss(
            pairs,
            pairs,
            FalseNegativesConfig(),
            scale=scale,
            bias=bias,
            num_images=70,
            tile_rows=32,
            compile_backend=backend,
        )
        if backend is None:
            plain = result
        for name in ("loss", "images", "captions", "scale", "bias"):
            torch.testing.assert_close(getattr(result, name), getattr(plain, name), rtol=1e-5, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4


def first_steps(folder: Path, rank: int, world_size: int) -> dict[str, FirstStep]:
    """First steps of the loss alone and of the model, for each policy and way to distribute."""
    steps = {}
    for name, policy in POLICIES.items():
        steps[f"loss {name}"] = loss_step(policy, rank, world_size)
        for size in MICRO_BATCHES:
            steps[f"model {name} {size}"] = model_step(folder, policy, size, rank, world_size)
    for size in MICRO_BATCHES:
        default = POLICIES["default"]
        steps[f"teacher {size}"] = model_step(folder, default, size, rank, world_size, teacher=TEACHER)
        steps[f"fsdp {size}"] = model_step(folder, default, size, rank, world_size, "fsdp")
        for parallel in PARALLEL:
            steps[f"distil {parallel} {size}"] = model_step(
                folder, default, size, rank, world_size, parallel, is_distilled=True
            )
    return steps


def all_trainings(folder: Path, rank: int, world_size: int) -> dict[str, Training]:
    """The trainings of `TRAININGS`."""
    return {name: train(folder, changes, rank, world_size) for name, changes in TRAININGS.items()}


def train(folder: Path, changes: dict[str, Any], rank: int, world_size: int) -> Training:
    """Three steps as in `raysys train`, then the third one again from the state after the second."""
    single = {"parallel": "ddp"} if world_size == 1 else {}
    section = TrainConfig(
        **{
            "batch_size": NUM_PAIRS,
            "caption_weights": {"colour": 0.5},
            "learning_rate": 1e-3,
            **changes,
            **single,
        }
    )
    part = part_of(global_batch(), rank, world_size)
    state = make_state(folder, section, rank, world_size)
    warm_up_ddp_buckets(state, part, section)
    losses = [train_step(state, part, section).metrics()["loss"] for _ in range(2)]
    saved = state.state_dict()
    torch.save(saved, folder / f"state-{rank}.pt")
    losses.append(train_step(state, part, section).metrics()["loss"])
    if rank == 0:  # the step must not change what is being written
        written = torch.load(folder / "state-0.pt", weights_only=True)
        for now, before in zip(_tensors(saved), _tensors(written), strict=True):
            torch.testing.assert_close(now, before, rtol=0, atol=0)
    if world_size > 1:
        dist.barrier()
    restored = make_state(folder, section, rank, world_size)
    restored.load_state_dict(torch.load(folder / "state-0.pt", weights_only=True))
    # The measurement of memory must change nothing.
    job = small_job(Path(tempfile.mkdtemp(dir=folder)), folder / "tiny", section)
    fitted = MicroBatch(job, world_size).fit(restored, RankMemory(rank, world_size))
    # Shares of 10, 5, 4 and 3 pairs; the next smaller divisor where a rank is short of memory.
    assert fitted.micro_batch_size == {1: 10, 2: 1, 3: 2, 4: 1}[world_size]
    warm_up_ddp_buckets(restored, part, section)
    restored_losses = [train_step(restored, part, section).metrics()["loss"]]
    return Training(losses, restored_losses, _weights(state), _weights(restored))


def _tensors(state: Any) -> list[Tensor]:
    """All tensors of a nested state dict, in order."""
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


def _weights(state: TrainState) -> dict[str, Tensor]:
    """The exported weights; empty on ranks other than 0."""
    saved = state.state_dict()
    return exported_weights(saved) if saved else {}


def make_state(folder: Path, section: TrainConfig, rank: int, world_size: int) -> TrainState:
    """The training state of a rank of a process group."""
    AcceleratorState._reset_state(reset_partial_state=True)
    # The variables that Ray Train sets for its workers.
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in variables.items()} if world_size > 1 else {})
    accelerator = open_accelerator(section, world_size)
    dimensions = TEACHER_DIMENSIONS if section.teacher is not None else None
    return make_train_state(
        str(folder / "tiny"), IMAGE, section, 8, accelerator, teacher_dimensions=dimensions
    )


def loss_step(policy: FalseNegativesConfig, rank: int, world_size: int) -> FirstStep:
    """The loss on unit vectors in float64; gradients of vectors are gathered from all ranks."""
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
    pairs = local_pairs(
        part["images"],
        part["captions"],
        keys,
        groups,
        first_row=rank * len(keys),
        all_keys=gather_rows(keys),
        all_groups=gather_rows(groups),
    )
    result = loss_and_gradients(pairs, policy, scale=scale, bias=bias, num_images=NUM_PAIRS, tile_rows=2)
    return FirstStep(
        _sum_over_ranks(result.loss, world_size),
        {
            "images": _gather_sample_grads(result.images),
            "captions": _gather_sample_grads(result.captions),
            "scale": _sum_over_ranks(result.scale, world_size),
            "bias": _sum_over_ranks(result.bias, world_size),
        },
    )


def model_step(
    folder: Path,
    policy: FalseNegativesConfig,
    micro_batch_size: int | None,
    rank: int,
    world_size: int,
    parallel: str = "ddp",
    *,
    is_distilled: bool = False,
    teacher: TeacherConfig | None = None,
) -> FirstStep:
    """The backward pass of `train_step`, with DDP or FSDP over both towers."""
    model = copy.deepcopy(_tiny_model(folder))
    start = None
    if is_distilled:
        start = DualEncoder(copy.deepcopy(model), IMAGE)
        perturb(model)
    towers: torch.nn.Module = DualEncoder(model, IMAGE)
    if world_size > 1:
        towers = shard(DualEncoder(model, IMAGE)) if parallel == "fsdp" else DistributedDataParallel(towers)
    section = TrainConfig(
        batch_size=NUM_PAIRS,
        false_negatives=policy,
        caption_weights={"colour": 0.5},
        micro_batch_size=micro_batch_size,
        teacher=teacher,
    )
    head = None
    if teacher is not None:
        head = torch.nn.Linear(model.config.vision_config.hidden_size, TEACHER_DIMENSIONS, bias=False)
        torch.nn.init.eye_(head.weight)
    part = part_of(global_batch(), rank, world_size)
    local_loss = backward(towers, part, section, start, head)["loss"]
    parameters = dict(model.named_parameters())
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    assert gradients.keys() == parameters.keys()
    full_gradients = full_tensors_on_cpu(gradients, is_main=True)
    if head is not None and head.weight.grad is not None:
        full_gradients["head"] = head.weight.grad
    loss = _sum_over_ranks(local_loss, world_size)
    return FirstStep(loss, full_gradients, clip_grad_norm(model.parameters(), 1e9))


@functools.cache  # transformers takes a tenth of a second to read it
def _tiny_model(folder: Path) -> Any:
    return load_model(folder / "tiny")


def global_batch() -> dict[str, Tensor]:
    """Photos of noise, titles that repeat, and a colour for some rows."""
    rng = np.random.default_rng(5)
    title_tokens = {key: rng.integers(3, 14, 6) for key in sorted(set(KEYS))}
    colour_tokens = {colour: rng.integers(3, 14, 6) for colour in range(3)}
    colours = [number % 3 for number in range(NUM_PAIRS)]
    tokens = [[title_tokens[key], colour_tokens[colour]] for key, colour in zip(KEYS, colours, strict=True)]
    return {
        "pixels": torch.from_numpy(rng.integers(0, 256, (NUM_PAIRS, 16, 16, 3), dtype=np.uint8)),
        "tokens": torch.from_numpy(np.array(tokens)),
        "caption_keys": torch.tensor(list(zip(KEYS, colours, strict=True))),
        "group_keys": torch.tensor(GROUPS),
        "stream_position": torch.arange(NUM_PAIRS),
        "teacher": torch.from_numpy(_teacher_vectors(rng)),
    }


def _teacher_vectors(rng: np.random.Generator) -> ndarray:
    """Unit vectors; the skipped fifth row and the ninth have none."""
    vectors = rng.normal(size=(NUM_PAIRS, TEACHER_DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[4, 8]] = 0.0
    return vectors.astype(np.float16)


def part_of(rows: dict[str, Tensor], rank: int, world_size: int) -> dict[str, Tensor]:
    """A rank's part of a global batch, padded to the size of the largest; only the last part is smaller."""
    size = -(-NUM_PAIRS // world_size)
    part = slice(rank * size, (rank + 1) * size)
    return joined([{name: values[part] for name, values in rows.items()}], size, rank)


def _gather_sample_grads(local: Tensor) -> Tensor:
    """The gradients of the samples of all ranks; those of the padding behind them must be zero."""
    grads = gather_rows(local)
    assert not grads[NUM_PAIRS:].any()
    return grads[:NUM_PAIRS]


def _sum_over_ranks(value: Tensor, world_size: int) -> Tensor:
    if world_size > 1:
        dist.all_reduce(value)
    return value
