"""Training steps of one process: pairs per second, and the share of a GPU's peak FLOP/s (MFU).

All contenders train a model of the same sizes with AdamW on equal batches. The baseline is open_clip's step;
where open_clip cannot be imported, a plain loop over `transformers` with `return_loss=True`. The limit is the
forward and backward pass of both towers, without loss or update. On a GPU the model is SigLIP-B/16-256 with
random weights, on a CPU the tiny one of the configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from raysys.bench import open_clip, photos
from raysys.bench.config import BenchRunConfig
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.bench.models import PUBLISHED_RUN_PAIRS, Batch, random_batch, write_siglip_b16, write_start
from raysys.columns import PIXELS, TOKENS
from raysys.config.schema import RayConfig, StreamConfig, TrainConfig
from raysys.encoder import siglip, start
from raysys.encoder.flops import peak_flops, training_flops_per_pair
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing

RAYSYS, RAYSYS_STREAM = "raysys", "raysys with its stream"
OPEN_CLIP, TRANSFORMERS, LIMIT = "open_clip", "transformers loop", "towers alone"
_SEED = 7
_NUM_PHOTOS, _PHOTOS_PER_SHARD, _NUM_DISTINCT_PHOTOS = 512, 64, 32

Step: TypeAlias = Callable[[Batch], Any]


@dataclass(frozen=True)
class TrainWork:
    """What every contender trains, and for how many steps."""

    encoder_uri: str
    shards_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    section: TrainConfig
    stream: StreamConfig
    ray: RayConfig
    num_warm_up: int
    num_measured: int

    @property
    def num_steps(self) -> int:
        return self.num_warm_up + self.num_measured

    @property
    def device(self) -> str:
        return "cuda" if self.section.use_gpu else "cpu"


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case: training on the GPU if there is one, else on the CPU."""
    work = _prepare(config, folder)
    contenders: dict[str, Callable[[], Measurement]] = {
        RAYSYS: partial(run_raysys, work),
        RAYSYS_STREAM: partial(run_raysys_stream, work),
        TRANSFORMERS: partial(run_transformers, work),
        LIMIT: partial(run_towers, work),
    }
    if not open_clip.import_failure():
        contenders[OPEN_CLIP] = partial(run_open_clip, work)
    properties = {
        "batch_size": work.section.batch_size,
        "steps": work.num_measured,
        "flops_per_pair": training_flops_per_pair(_model_config(work)),
        "gpu_hour_price": config.bench.gpu_hour_price,
        "on_gpu": float(work.section.use_gpu),
    }
    name = "B/16-256" if work.section.use_gpu else "tiny"
    baseline = OPEN_CLIP if OPEN_CLIP in contenders else TRANSFORMERS
    yield Case(name, "pairs/s", contenders, baseline, LIMIT, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """The FLOPs of a pair, contenders that were not measured, and the time of the published run."""
    (result,) = results
    properties = result.properties
    gflops = properties["flops_per_pair"] / 1e9
    lines = [f"{gflops:.2f} GFLOP per pair: matrix products, forward and twice that backward"]
    if reason := open_clip.import_failure():
        lines.append(f"{OPEN_CLIP}: not measured, {reason}")
    rate = result.contenders[RAYSYS_STREAM].rate.median
    hours = PUBLISHED_RUN_PAIRS / rate / 3600
    duration = f"1,000,000 pairs x 5 epochs / {rate:,.1f} pairs/s = {hours:,.1f} h"
    if properties["on_gpu"]:
        price = properties["gpu_hour_price"]
        return [*lines, f"{duration} on one such GPU, x {price:.2f} USD = {hours * price:,.0f} USD"]
    return [
        *lines,
        f"{duration} with the tiny model on this CPU: no prediction for SigLIP on a GPU; no MFU for a CPU",
    ]


def run_raysys(work: TrainWork) -> Measurement:
    """raysys's training step on a batch that is already on the device."""
    step, model = _raysys_step(work)
    return _time_steps(work, step, _in_memory_batches(work, model.config))


def run_raysys_stream(work: TrainWork) -> Measurement:
    """raysys's training step on batches of the training stream."""
    from raysys.cluster import nodes as cluster_nodes
    from raysys.cluster import session
    from raysys.cluster.capacity import Demand
    from raysys.shards.reader import shards_of
    from raysys.stream.blocks import rows_per_block
    from raysys.stream.concurrency import choose_concurrency
    from raysys.stream.decode import TrainingDecoder
    from raysys.stream.read import training_stream

    session.connect(work.ray)
    shards, batch_size = shards_of(work.shards_uri), work.section.batch_size
    nodes, this_process = cluster_nodes.alive_nodes(), Demand(1, "training process", "", {})
    concurrency = choose_concurrency(work.stream, nodes, this_process, cores=cluster_nodes.num_cores(nodes))
    stream = training_stream(
        shards,
        TrainingDecoder(work.encoder_uri, work.image, work.text, work.section.augment, (), _SEED, True),
        work.stream,
        concurrency,
        seed=_SEED,
        start=0,
        stop=work.num_steps * batch_size,
        rows_per_block=rows_per_block(shards, work.stream, batch_size=batch_size, workers=1),
    )
    step, _ = _raysys_step(work)
    batches = stream.iter_torch_batches(
        batch_size=batch_size, device=work.device, prefetch_batches=2, drop_last=True
    )
    return _time_steps(work, step, iter(batches), report_data_wait=True)


def run_transformers(work: TrainWork) -> Measurement:
    """The simplest trainer: the loss of `transformers`, differentiated by autograd."""
    model = _load_model(work)
    forward: Any = torch.compile(model) if work.section.compile else model

    def compute_loss(batch: Batch) -> Tensor:
        pixels = siglip.normalise(batch[PIXELS], work.image)
        loss: Tensor = forward(input_ids=batch[TOKENS][:, 0], pixel_values=pixels, return_loss=True).loss
        return loss

    return _time_steps(
        work, _autograd_step(work, model, compute_loss), _in_memory_batches(work, model.config)
    )


def run_open_clip(work: TrainWork) -> Measurement:
    """open_clip's model in these sizes, with open_clip's loss."""
    config = _model_config(work)
    model = open_clip.make_model(config).to(work.device)
    forward: Any = torch.compile(model) if work.section.compile else model
    sigmoid_loss = open_clip.make_loss()

    def compute_loss(batch: Batch) -> Tensor:
        pixels = siglip.normalise(batch[PIXELS], work.image)
        loss: Tensor = sigmoid_loss(**forward(pixels, batch[TOKENS][:, 0]))
        return loss

    return _time_steps(work, _autograd_step(work, model, compute_loss), _in_memory_batches(work, config))


def run_towers(work: TrainWork) -> Measurement:
    """The limit: forward and backward of both towers; the gradient of a plain sum takes the loss's place."""
    from raysys.train.model.dual_encoder import DualEncoder

    model = _load_model(work)
    towers: Any = DualEncoder(model, work.image)
    towers = torch.compile(towers) if work.section.compile else towers

    def step(batch: Batch) -> None:
        model.zero_grad()
        with _autocast(work):
            embedded = towers(batch[PIXELS], batch[TOKENS])
        (embedded.images[:, 0].sum() + embedded.captions[:, 0, 0].sum()).backward()

    return _time_steps(work, step, _in_memory_batches(work, model.config))


def _raysys_step(work: TrainWork) -> tuple[Step, Any]:
    """raysys's training step, and the model that it trains."""
    from raysys.train.model import make_train_state, open_accelerator
    from raysys.train.step import train_step

    accelerator = open_accelerator(work.section, world_size=1)
    state = make_train_state(work.encoder_uri, work.image, work.section, work.num_steps, accelerator)
    return lambda batch: train_step(state, batch, work.section), state.model


def _autograd_step(work: TrainWork, model: Any, compute_loss: Callable[[Batch], Tensor]) -> Step:
    section = work.section
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=section.learning_rate,
        betas=(0.9, section.beta2),
        weight_decay=section.weight_decay,
    )

    def step(batch: Batch) -> float:
        with _autocast(work):
            loss = compute_loss(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _time_steps(
    work: TrainWork, step: Step, batches: Iterator[Batch], *, report_data_wait: bool = False
) -> Measurement:
    """The rate after the warm-up; `report_data_wait` adds the share of time spent waiting for batches."""
    data_wait_s, started = 0.0, 0.0
    for number in range(work.num_steps):
        if number == work.num_warm_up:
            _synchronize(work.section.use_gpu, reset_peak_memory=True)
            data_wait_s, started = 0.0, time.perf_counter()
        wait_started = time.perf_counter()
        batch = next(batches)
        data_wait_s += time.perf_counter() - wait_started
        step(batch)
    _synchronize(work.section.use_gpu)
    seconds = time.perf_counter() - started
    return Measurement(
        work.num_measured * work.section.batch_size / seconds,
        _metrics(work, seconds, data_wait_s if report_data_wait else None),
    )


def _synchronize(on_gpu: bool, *, reset_peak_memory: bool = False) -> None:
    if on_gpu:
        torch.cuda.synchronize()
        if reset_peak_memory:
            torch.cuda.reset_peak_memory_stats()


def _metrics(work: TrainWork, seconds: float, data_wait_s: float | None) -> dict[str, float]:
    flops_per_pair = training_flops_per_pair(_model_config(work))
    flops_per_s = work.num_measured * work.section.batch_size * flops_per_pair / seconds
    metrics = {"step_s": seconds / work.num_measured, "model_tflops": flops_per_s / 1e12}
    if data_wait_s is not None:
        metrics["data_wait"] = data_wait_s / seconds
    if work.section.use_gpu:
        metrics["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        peak = peak_flops(torch.cuda.get_device_name())
        metrics |= {"mfu": flops_per_s / peak} if peak else {}
        torch.cuda.empty_cache()  # the other contenders' processes share this GPU
    return metrics


def _in_memory_batches(work: TrainWork, model_config: Any) -> Iterator[Batch]:
    """The same random batch, endlessly, on the device."""
    batch = random_batch(model_config, work.image, work.text.max_length, work.section.batch_size)
    on_device = {name: rows.to(work.device) for name, rows in batch.items()}
    while True:
        yield on_device


def _autocast(work: TrainWork) -> Any:
    return torch.autocast(work.device, torch.bfloat16, enabled=work.section.precision == "bf16")


def _load_model(work: TrainWork) -> Any:
    return siglip.load_model(Path(work.encoder_uri)).to(work.device).train()


def _model_config(work: TrainWork) -> Any:
    import transformers

    return transformers.SiglipConfig.from_pretrained(work.encoder_uri)


def _prepare(config: BenchRunConfig, folder: Path) -> TrainWork:
    """Write the model and the photos, and choose the settings for this device."""
    section, on_gpu = config.bench, torch.cuda.is_available()
    encoder = folder / "encoder"
    write_start(config, encoder)
    if on_gpu:
        write_siglip_b16(encoder)
    train_settings: dict[str, Any] = {
        "workers": 1,
        "use_gpu": on_gpu,
        "precision": "bf16" if on_gpu else "fp32",
        "compile": on_gpu and section.train_compile,
        "batch_size": section.train_batch_size,
        "micro_batch_size": None,
        "caption_weights": {},
    }
    shards_uri = photos.make_shard_set(
        folder / "shards",
        section.train_megapixels,
        num_items=_NUM_PHOTOS,
        num_distinct=_NUM_DISTINCT_PHOTOS,
        items_per_shard=_PHOTOS_PER_SHARD,
        seed=_SEED,
    )
    return TrainWork(
        str(encoder),
        shards_uri,
        siglip.image_preprocessing_of(encoder),
        start.text_preprocessing(config.encoder),
        config.train.model_copy(update=train_settings),
        config.stream,
        config.ray,
        section.train_warm_up_steps,
        section.train_steps,
    )
