"""The shipped configurations for GPUs fit into the memory that they name: weights to activations, in bytes."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

import raysys
from raysys.bench.models import siglip_b16_config
from raysys.config import load_config
from raysys.config.schema import TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.train.memory import batches_bytes, loss_bytes
from raysys.train.model.dual_encoder import DualEncoder
from tests.unit.train.live_memory import LiveBytes

ROOT = Path(raysys.__file__).parent.parent
GB = 1e9
LIMIT = 0.9  # of a GPU: the safety margin of `train.micro_batch_size: auto`
# MB a pair of SigLIP-B/16-256 in bf16, as the README of `train` states.
ACTIVATIONS_MB = {"none": 120.8, "selective": 67.7, "full": 14.4}


@cache
def shallow_model(num_layers: int) -> Any:
    """SigLIP-B/16-256 with fewer layers and a small vocabulary."""
    config = siglip_b16_config()
    config.text_config.vocab_size = 100
    for tower in (config.vision_config, config.text_config):
        tower.num_hidden_layers = num_layers
    return transformers.SiglipModel(config)


@cache
def stored_bytes(kind: Any, num_layers: int, num_pairs: int) -> int:
    """What a forward pass leaves in memory for the backward pass."""
    towers = DualEncoder(copy.deepcopy(shallow_model(num_layers)), ImagePreprocessing(size_px=256))
    if kind != "none":
        towers.checkpoint_activations(kind)
    pixels, tokens = torch.zeros(num_pairs, 256, 256, 3, dtype=torch.uint8), torch.zeros(num_pairs, 1, 64)
    with LiveBytes() as live, torch.autocast("cpu", torch.bfloat16):
        embedded = towers(pixels, tokens.long())
        assert embedded.images.requires_grad  # its graph holds what is counted
        stored: int = live.now()
    return stored


def activation_bytes(kind: str) -> tuple[float, float]:
    """Bytes of all 12 layers: for every pair, and once (the weights in bf16)."""
    of_layers = []
    for num_layers in (1, 2):
        one, two = (stored_bytes(kind, num_layers, num_pairs) for num_pairs in (1, 2))
        of_layers.append((two - one, one - (two - one)))
    per_pair, once = (first + 11 * (second - first) for first, second in zip(*of_layers, strict=True))
    return per_pair, once


def step_bytes(section: TrainConfig, device_bytes: float) -> float:
    """The memory of a worker's step without micro-batches."""
    with torch.device("meta"):
        model = transformers.SiglipModel(siglip_b16_config())
    num_weights: int = sum(parameter.numel() for parameter in model.parameters())
    # Weights, gradients, two averages of AdamW, and the buckets of DDP, in float32.
    state = 4 * num_weights * (4 + (section.workers > 1))
    share = section.batch_size // section.workers
    per_pair, once = activation_bytes(section.activation_checkpointing)
    batches = batches_bytes(share, 256, int(device_bytes))
    loss = loss_bytes(section, rows=share, workers=section.workers, dimensions=768)
    return state + once + share * per_pair + batches + loss


@pytest.mark.parametrize("kind", ACTIVATIONS_MB)
def test_activations_of_a_pair_are_those_of_the_readme(kind: str) -> None:
    per_pair, _ = activation_bytes(kind)
    assert per_pair / 1e6 == pytest.approx(ACTIVATIONS_MB[kind], rel=0.005)
    assert f"{ACTIVATIONS_MB[kind]:.0f} MB" in (ROOT / "raysys/train/README.md").read_text()


@pytest.mark.parametrize(
    "path", ["configs/siglip_b16_1xh200.yaml", "configs/siglip_b16_8xh100.yaml", "cluster/config.yaml"]
)
def test_recipe_needs_the_memory_that_it_states(path: str, tmp_path: Path) -> None:
    text = (ROOT / path).read_text()
    if path.startswith("cluster"):
        config_path = tmp_path / "config.yaml"
        config_path.write_text(yaml.safe_load(text)["data"]["config.yaml"])
    else:
        config_path = ROOT / path
    section = load_config(str(config_path)).train
    match = re.search(r"needs (\d+) of the (\d+) GB of a GPU", text)
    assert match is not None
    stated, available = (float(number) for number in match.groups())
    needed = step_bytes(section, available * GB) / GB
    assert needed == pytest.approx(stated, abs=0.5)
    assert needed < LIMIT * available
    assert (section.precision, section.micro_batch_size) == ("bf16", "auto")
