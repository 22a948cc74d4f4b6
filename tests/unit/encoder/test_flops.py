"""Model FLOPs against the count of torch, and the peaks of GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from raysys.config.schema import LoraConfig, TrainConfig
from raysys.encoder.flops import peak_flops, training_flops_per_pair
from raysys.encoder.siglip import image_features, text_features
from raysys.train.model import lora
from raysys.train.model.optim import freeze
from raysys.train.step_metrics import trained_part
from tests.unit.encoder.small_towers import small_config

FROZEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "embeddings and a layer": {"frozen_image_layers": 1, "frozen_text_layers": 2},
    "all layers": {"frozen_image_layers": 2, "frozen_text_layers": 3},
    "the image tower": {"frozen_image_layers": "all"},
    "the text tower": {"frozen_text_layers": "all"},
    "all but the top layers": {"method": "top_layers", "robust": {"top_layers": 1}},
}


@pytest.mark.parametrize("changes", FROZEN.values(), ids=FROZEN)
def test_formula_equals_the_count_of_torch(changes: dict[str, Any]) -> None:
    section = TrainConfig(**changes)
    model = eager_model()
    freeze(model, section)
    formula = training_flops_per_pair(model.config, 1, trained_part(model, section))
    assert flops_by_torch(model) == pytest.approx(formula, rel=1e-3)


def test_matrices_under_lora_have_no_gradients_of_their_own() -> None:
    section = TrainConfig(lora=LoraConfig(rank=1))
    model = eager_model()
    lora.add_lora(model, section.lora or LoraConfig())
    formula = training_flops_per_pair(model.config, 1, trained_part(model, section))
    assert flops_by_torch(model) == pytest.approx(formula, rel=0.1)  # without the thin matrices
    assert formula < 0.75 * training_flops_per_pair(model.config)


def test_dropped_patches_count_only_where_they_are_embedded() -> None:
    config, quarter = small_config(), small_config()
    quarter.vision_config.image_size //= 2  # 4 patches instead of 16
    # Pixels need no gradient: a forward product and one for the weights, 2 operations a multiplication.
    of_twelve_patches = 4 * 12 * (3 * 8 * 8 * config.vision_config.hidden_size)
    dropped = training_flops_per_pair(config, patch_dropout=0.75)
    assert dropped == training_flops_per_pair(quarter) + of_twelve_patches


def test_distillation_adds_a_forward_pass() -> None:
    section = TrainConfig(method="distil")
    model = eager_model()
    distil = training_flops_per_pair(model.config, 1, trained_part(model, section))
    assert distil == pytest.approx(4 / 3 * training_flops_per_pair(model.config), rel=0.03)


def eager_model() -> Any:
    config = small_config()
    config._attn_implementation = "eager"  # so that torch counts the products of the attention
    return transformers.SiglipModel(config)


def flops_by_torch(model: Any) -> float:
    """FLOPs of a pair in a forward and a backward pass."""
    pixels, tokens = torch.zeros(5, 3, 32, 32), torch.ones(5, 10, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        (image_features(model, pixels).sum() + text_features(model, tokens).sum()).backward()
    return float(counter.get_total_flops()) / 5


def test_every_further_caption_costs_the_same() -> None:
    config = small_config()
    one, two, three = (training_flops_per_pair(config, number) for number in (1, 2, 3))
    assert two - one == three - two > 0


def test_flops_of_the_base_model_at_256_pixels() -> None:
    config = transformers.SiglipConfig(vision_config={"image_size": 256, "patch_size": 16})
    # 12 layers x (4 x 768^2 + 2 x 768 x 3072) = 85 M multiplications a token in each tower: 256 patches and
    # 64 tokens make 27 G, attention 1.2 G, the rest 0.5 G; six operations each.
    assert training_flops_per_pair(config) == pytest.approx(6 * 28.9e9, rel=0.01)


# Names as `torch.cuda.get_device_name` gives them; half of the peaks with sparsity of the data sheets.
PEAKS = {
    "NVIDIA H100 80GB HBM3": 1979e12 / 2,
    "NVIDIA H100 PCIe": 1513e12 / 2,
    "NVIDIA H100 NVL": 1671e12 / 2,
    "NVIDIA H200": 1979e12 / 2,
    "NVIDIA A100-SXM4-40GB": 624e12 / 2,
    "NVIDIA A100-SXM4-80GB": 624e12 / 2,
    "NVIDIA A100-PCIE-40GB": 624e12 / 2,
    "NVIDIA A100 80GB PCIe": 624e12 / 2,
    "NVIDIA B200": 4500e12 / 2,
    "NVIDIA L40S": 724e12 / 2,
    "NVIDIA L4": 242e12 / 2,
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb": None,
    "NVIDIA GeForce RTX 4090": None,
}


@pytest.mark.parametrize(("name", "peak"), PEAKS.items(), ids=PEAKS)
def test_peak_is_that_of_the_device_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == (None if peak is None else pytest.approx(peak, rel=1e-3))
