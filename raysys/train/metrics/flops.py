"""How much arithmetic training takes, by the model's sizes, and what a GPU could do.

Matrix products alone: 2 operations a multiplication, a backward pass twice its forward (Kaplan et al. 2020).
What micro-batches and checkpointing compute again does not count: that is what makes it *model* FLOPs.
"""

from __future__ import annotations

from typing import Any

# Dense bf16 peaks from the makers' data sheets, operations a second.
_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}


def training_flops_per_pair(config: Any, num_captions: int = 1) -> float:
    """Operations to train on one image with its captions; `config` is a SigLIP's, of both towers."""
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
    # Pixels feel nothing: of the patches only the weights do.
    flops: float = 3.0 * 2.0 * (image + num_captions * caption) - 2.0 * patches
    return flops


def peak_flops(device_name: str) -> float | None:
    """What a GPU of this name does at most in bf16; None for one that is not known here."""
    return next(
        (peak for name, peak in _PEAKS.items() if name in device_name.upper().replace("-", " ")), None
    )


def _layers(tower: Any, num_tokens: int) -> int:
    """Multiplications in a tower's layers: projections, MLP, and the attention between all tokens."""
    hidden, inner = tower.hidden_size, tower.intermediate_size
    per_token = 4 * hidden**2 + 2 * hidden * inner + 2 * num_tokens * hidden
    return int(tower.num_hidden_layers * num_tokens * per_token)
