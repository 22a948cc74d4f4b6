"""One process's training steps: pairs a second, and how much of them is arithmetic.

Everybody trains a model of the same sizes with AdamW on equal batches. The peer is open_clip's step, or where
that cannot be imported a plain loop over `transformers` with `return_loss=True`. The limit is both towers
forward and backward, without loss or update. On a GPU the model is SigLIP-B/16-256 with random weights,
elsewhere the tiny one of the configuration.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from raysys.bench import photos
from raysys.bench.loss import why_no_open_clip
from raysys.bench.measure import Case, Finding, Trial
from raysys.columns import CAPTION_KEYS, GROUP_KEYS, PIXELS, TOKENS
from raysys.config import Config
from raysys.config.schema import RayConfig, StreamConfig, TrainConfig
from raysys.encoder import siglip, start
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing
from raysys.synth import generate_items
from raysys.train.metrics.flops import peak_flops, training_flops_per_pair

OURS, OURS_STREAM = "raysys", "raysys with its stream"
OPEN_CLIP, TRANSFORMERS, LIMIT = "open_clip", "transformers loop", "towers alone"
_OPEN_CLIP_MODEL = "ViT-B-16-SigLIP-i18n-256"
_VOCABULARY = 250_000  # of the multilingual SigLIP
PAPER_PAIRS = 1_000_000 * 5
_SEED = 7
_TITLES, _PHOTOS, _PHOTOS_A_SHARD, _DISTINCT = 2000, 512, 64, 32

Batch: TypeAlias = dict[str, Tensor]
Step: TypeAlias = Callable[[Batch], Any]


@dataclass(frozen=True)
class Work:
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


def cases(config: Config, folder: Path) -> Iterator[Case]:
    """One case: the device that is there."""
    work = _prepare(config, folder)
    contenders: dict[str, Callable[[], Trial]] = {
        OURS: partial(run_ours, work),
        OURS_STREAM: partial(run_ours_streamed, work),
        TRANSFORMERS: partial(run_transformers, work),
        LIMIT: partial(run_towers, work),
    }
    if not why_no_open_clip():
        contenders[OPEN_CLIP] = partial(run_open_clip, work)
    facts = {
        "batch_size": work.section.batch_size,
        "steps": work.num_measured,
        "flops_per_pair": training_flops_per_pair(_load(work).config),
        "gpu_hour_price": config.bench.gpu_hour_price,
        "on_gpu": float(work.section.use_gpu),
    }
    peer = OPEN_CLIP if OPEN_CLIP in contenders else TRANSFORMERS
    yield Case("B/16-256" if work.section.use_gpu else "tiny", "pairs/s", contenders, peer, LIMIT, facts)


def conclusions(findings: Sequence[Finding]) -> list[str]:
    """The arithmetic of a pair, who was not measured, and what the paper's run would take."""
    (finding,) = findings
    facts = finding.facts
    lines = [
        f"{facts['flops_per_pair'] / 1e9:.2f} GFLOP a pair: matrix products, forward and twice that backward"
    ]
    if missing := why_no_open_clip():
        lines.append(f"{OPEN_CLIP}: not measured, {missing}")
    rate = finding.contenders[OURS_STREAM].rate.median
    hours = PAPER_PAIRS / rate / 3600
    priced = f"1,000,000 pairs x 5 epochs / {rate:,.1f} pairs/s = {hours:,.1f} h"
    if facts["on_gpu"]:
        price = facts["gpu_hour_price"]
        return [*lines, f"{priced} on one such GPU, x {price:.2f} USD = {hours * price:,.0f} USD"]
    return [
        *lines,
        f"{priced} of the tiny model on this CPU; says nothing of SigLIP on a GPU; no MFU for a CPU",
    ]


def run_ours(work: Work) -> Trial:
    """raysys's own step over a batch that lies on the device."""
    step, model = _our_step(work)
    return _time(work, step, _in_memory(work, model))


def run_ours_streamed(work: Work) -> Trial:
    """raysys's own step over the very stream that training reads."""
    from raysys.cluster import session
    from raysys.shards.reader import shards_of
    from raysys.stream.blocks import rows_per_block
    from raysys.stream.decode import TrainingDecoder
    from raysys.stream.read import training_stream

    session.connect(work.ray)
    shards, size = shards_of(work.shards_uri), work.section.batch_size
    stream = training_stream(
        shards,
        TrainingDecoder(work.encoder_uri, work.image, work.text, work.section.augment, (), _SEED, True),
        work.stream,
        seed=_SEED,
        start=0,
        stop=work.num_steps * size,
        rows_per_block=rows_per_block(shards, work.stream, batch_size=size, workers=1),
    )
    step, _ = _our_step(work)
    batches = stream.iter_torch_batches(
        batch_size=size, device=work.device, prefetch_batches=2, drop_last=True
    )
    return _time(work, step, iter(batches), waits=True)


def run_transformers(work: Work) -> Trial:
    """What a trainer writes first: the model's own loss by autograd."""
    model = _load(work)

    def loss_of(batch: Batch) -> Tensor:
        pixels = siglip.normalise(batch[PIXELS], work.image)
        loss: Tensor = trained(input_ids=batch[TOKENS][:, 0], pixel_values=pixels, return_loss=True).loss
        return loss

    trained: Any = torch.compile(model) if work.section.compile else model
    return _time(work, _plain_step(work, model, loss_of), _in_memory(work, model))


def run_open_clip(work: Work) -> Trial:
    """open_clip's model of these sizes, with its loss."""
    open_clip = importlib.import_module("open_clip")
    model = _open_clip_model(open_clip, _model_config(work)).to(work.device)
    trained: Any = torch.compile(model) if work.section.compile else model
    sigmoid_loss = open_clip.loss.SigLipLoss()

    def loss_of(batch: Batch) -> Tensor:
        loss: Tensor = sigmoid_loss(
            **trained(siglip.normalise(batch[PIXELS], work.image), batch[TOKENS][:, 0])
        )
        return loss

    return _time(work, _plain_step(work, model, loss_of), _in_memory(work, _load(work)))


def _open_clip_model(open_clip: Any, config: Any) -> Any:
    """Its own SigLIP where that has these sizes; else the parts that it builds models of, pooled alike."""
    vision, text = config.vision_config, config.text_config
    if (vision.hidden_size, vision.num_hidden_layers) == (768, 12):
        return open_clip.create_model(_OPEN_CLIP_MODEL, pretrained=None, output_dict=True)
    return open_clip.model.CustomTextCLIP(
        embed_dim=vision.hidden_size,
        vision_cfg={
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "attentional_pool": True,
            "attn_pooler_queries": 1,
            "attn_pooler_heads": vision.num_attention_heads,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **_sizes(vision),
        },
        text_cfg={
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
            **_sizes(text),
        },
        init_logit_scale=math.log(10.0),
        init_logit_bias=-10.0,
        output_dict=True,
    )


def _sizes(tower: Any) -> dict[str, Any]:
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "mlp_ratio": tower.intermediate_size / tower.hidden_size,
    }


def run_towers(work: Work) -> Trial:
    """The limit: vectors, and gradients of the weights from any numbers at all."""
    from raysys.train.model.dual_encoder import DualEncoder

    model = _load(work)
    towers: Any = DualEncoder(model, work.image)
    towers = torch.compile(towers) if work.section.compile else towers

    def step(batch: Batch) -> None:
        model.zero_grad()
        with _precision(work):
            found = towers(batch[PIXELS], batch[TOKENS])
        (found.images[:, 0].sum() + found.captions[:, 0, 0].sum()).backward()

    return _time(work, step, _in_memory(work, model))


def _our_step(work: Work) -> tuple[Step, Any]:
    """The one place that knows raysys's engine."""
    from raysys.train.model import make_train_state, open_accelerator
    from raysys.train.step import train_step

    accelerator = open_accelerator(work.section, world_size=1)
    engine = make_train_state(work.encoder_uri, work.image, work.section, work.num_steps, accelerator)
    return lambda batch: train_step(engine, batch, work.section), engine.model


def _plain_step(work: Work, model: Any, loss_of: Callable[[Batch], Tensor]) -> Step:
    section = work.section
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=section.learning_rate,
        betas=(0.9, section.beta2),
        weight_decay=section.weight_decay,
    )

    def step(batch: Batch) -> float:
        with _precision(work):
            loss = loss_of(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _time(work: Work, step: Step, batches: Iterator[Batch], *, waits: bool = False) -> Trial:
    """The rate behind the warm-up; of a stream also the share of time in which it was waited for."""
    on_gpu = work.section.use_gpu
    waited_s, began = 0.0, 0.0
    for number in range(work.num_steps):
        if number == work.num_warm_up:
            _settle(on_gpu)
            waited_s, began = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - asked
        step(batch)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return Trial(
        work.num_measured * work.section.batch_size / seconds,
        _figures(work, seconds, waited_s if waits else None),
    )


def _settle(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _figures(work: Work, seconds: float, waited_s: float | None) -> dict[str, float]:
    config = _model_config(work)
    flops = work.num_measured * work.section.batch_size * training_flops_per_pair(config) / seconds
    found = {"step_s": seconds / work.num_measured, "model_tflops": flops / 1e12}
    if waited_s is not None:
        found["data_wait"] = waited_s / seconds
    if work.section.use_gpu:
        found["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        peak = peak_flops(torch.cuda.get_device_name())
        found |= {"mfu": flops / peak} if peak else {}
        torch.cuda.empty_cache()  # the others' processes are alive, and want it
    return found


def _in_memory(work: Work, model: Any) -> Iterator[Batch]:
    """The same random batch for ever, on the device."""
    batch = random_batch(model.config, work.image, work.text.max_length, work.section.batch_size)
    on_device = {name: rows.to(work.device) for name, rows in batch.items()}
    while True:
        yield on_device


def random_batch(model_config: Any, image: ImagePreprocessing, max_length: int, num_pairs: int) -> Batch:
    """Pairs as the stream gives them, all of them different."""
    generator = torch.Generator().manual_seed(_SEED)
    side, vocabulary = image.size_px, model_config.text_config.vocab_size
    keys = torch.arange(1, num_pairs + 1)
    return {
        PIXELS: torch.randint(0, 256, (num_pairs, side, side, 3), generator=generator, dtype=torch.uint8),
        TOKENS: torch.randint(3, vocabulary, (num_pairs, 1, max_length), generator=generator),
        CAPTION_KEYS: keys[:, None],
        GROUP_KEYS: keys,
    }


def _precision(work: Work) -> Any:
    return torch.autocast(work.device, torch.bfloat16, enabled=work.section.precision == "bf16")


def _load(work: Work) -> Any:
    return siglip.load_model(Path(work.encoder_uri)).to(work.device).train()


def _model_config(work: Work) -> Any:
    import transformers

    return transformers.SiglipConfig.from_pretrained(work.encoder_uri)


def _prepare(config: Config, folder: Path) -> Work:
    section, on_gpu = config.bench, torch.cuda.is_available()
    encoder = folder / "encoder"
    start.fill_start(config.encoder, lambda: [item.title for item in generate_items(_TITLES, _SEED)])(encoder)
    if on_gpu:
        _write_base_model(encoder)
    recipe: dict[str, Any] = {
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
        num_items=_PHOTOS,
        distinct=_DISTINCT,
        items_per_shard=_PHOTOS_A_SHARD,
        seed=_SEED,
    )
    return Work(
        str(encoder),
        shards_uri,
        siglip.image_preprocessing_of(encoder),
        start.text_preprocessing(config.encoder),
        config.train.model_copy(update=recipe),
        config.stream,
        config.ray,
        section.train_warm_up_steps,
        section.train_steps,
    )


def base_config() -> Any:
    """The sizes of the multilingual SigLIP-B/16-256."""
    import transformers

    sizes = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    text = {"vocab_size": _VOCABULARY, "max_position_embeddings": 64, "projection_size": 768}
    return transformers.SiglipConfig(
        text_config={**sizes, **text}, vision_config={**sizes, "image_size": 256, "patch_size": 16}
    )


def _write_base_model(folder: Path) -> None:
    """Random weights of these sizes in place of the tiny model; the tiny tokenizer stays."""
    import transformers

    model = transformers.SiglipModel(base_config())
    torch.nn.init.constant_(model.logit_scale, math.log(10.0))
    torch.nn.init.constant_(model.logit_bias, -10.0)
    model.save_pretrained(folder)
