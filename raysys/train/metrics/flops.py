"""FLOPs of a training step by the sizes of the model, and the peak FLOP/s of GPUs.

Only matrix products count: 2 operations a multiplication, and a backward pass takes twice its forward pass
(Kaplan et al. 2020). *Model* FLOPs exclude what micro-batches and activation checkpointing recompute.
"""

from __future__ import annotations

from typing import Any

# Dense bf16 peaks from the manufacturers' data sheets, operations a second.
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}


def training_flops_per_pair(config: Any, num_captions: int = 1) -> float:
    """Operations to train on one photo with its captions; `config` is a `SiglipConfig`."""
    vision, text = config.vision_config, config.text_config
    num_patches = (vision.image_size // vision.patch_size) ** 2
    hidden, inner = vision.hidden_size, vision.intermediate_size
    patches = num_patches * vision.num_channels * vision.patch_size**2 * hidden
    # The pooling head: one query over all patches, then an MLP on one vector.
    pooling = 2 * num_patches * hidden**2 + 2 * hidden**2 + 2 * num_patches * hidden + 2 * hidden * inner
    length = text.max_position_embeddings
    projection = text.hidden_size * getattr(text, "projection_size", text.hidden_size)
    image = patches + _layers(vision, num_patches) + pooling
    caption = _layers(text, length) + projection
    # Pixels need no gradient, so the patch embedding's backward pass computes only that of its weights.
    flops: float = 3.0 * 2.0 * (image + num_captions * caption) - 2.0 * patches
    return flops


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of a GPU by its name, operations a second; None for an unknown one."""
    return next(
        (peak for name, peak in _PEAK_FLOPS.items() if name in device_name.upper().replace("-", " ")), None
    )


def _layers(tower: Any, num_tokens: int) -> int:
    """Multiplications in a tower's layers: projections, MLP, and attention over all tokens."""
    hidden, inner = tower.hidden_size, tower.intermediate_size
    per_token = 4 * hidden**2 + 2 * hidden * inner + 2 * num_tokens * hidden
    return int(tower.num_hidden_layers * num_tokens * per_token)
