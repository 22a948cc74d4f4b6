"""FLOPs by the formula equal those that torch counts."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from raysys.encoder.siglip import image_features, text_features
from raysys.train.metrics.flops import peak_flops, training_flops_per_pair


def small_config() -> transformers.SiglipConfig:
    """Two towers in which all sizes differ."""
    return transformers.SiglipConfig(
        text_config={
            "vocab_size": 50,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 10,
            "projection_size": 32,
            "pad_token_id": 1,
            "bos_token_id": None,
            "eos_token_id": 1,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
    )


def test_formula_equals_the_count_of_torch() -> None:
    config = small_config()
    config._attn_implementation = "eager"  # so that torch counts the products of the attention
    model = transformers.SiglipModel(config)
    pixels, tokens = torch.zeros(5, 3, 32, 32), torch.ones(5, 10, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        (image_features(model, pixels).sum() + text_features(model, tokens).sum()).backward()
    assert counter.get_total_flops() / 5 == pytest.approx(training_flops_per_pair(config), rel=1e-3)


def test_every_further_caption_costs_the_same() -> None:
    config = small_config()
    one, two, three = (training_flops_per_pair(config, number) for number in (1, 2, 3))
    assert two - one == three - two > 0


def test_flops_of_the_base_model_at_256_pixels() -> None:
    config = transformers.SiglipConfig(vision_config={"image_size": 256, "patch_size": 16})
    # 12 layers x (4 x 768^2 + 2 x 768 x 3072) = 85 M multiplications a token in each tower: 256 patches and
    # 64 tokens make 27 G, attention 1.2 G, the rest 0.5 G; six operations each.
    assert training_flops_per_pair(config) == pytest.approx(6 * 28.9e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("A card", None)]
)
def test_peak_is_looked_up_by_device_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak
