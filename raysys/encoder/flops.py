"""Model FLOPs of a training step, and the peaks of GPUs that they are divided by (MFU).

FLOPs count matrix products only: 2 operations a multiplication. The backward pass of a trained matrix takes
twice its forward pass (Kaplan et al. 2020), and what is frozen below the lowest trained layer has none. What
micro-batches and activation checkpointing compute again does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raysys.encoder.patch_dropout import num_kept_patches

_PEAK_FLOPS = {
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA H100 80GB HBM3": 989.5e12,  # SXM
    "NVIDIA H100 NVL": 835.5e12,
    "NVIDIA H100 PCIe": 756.5e12,
    "NVIDIA H200": 989.5e12,  # SXM
    "NVIDIA H200 NVL": 835.5e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}


def peak_flops(device_name: str) -> float | None:
    """The dense bf16 peak of a GPU by its `torch.cuda.get_device_name`, operations a second; else None.

    From NVIDIA's data sheets of the H100 (SXM and NVL; PCIe in its edition of 2022), H200, B200 (HGX), A100,
    L40S and L4. Peaks that they give only with sparsity are halved. A part of a GPU (MIG) has no peak here.
    """
    return _PEAK_FLOPS.get(device_name)


@dataclass(frozen=True)
class Trained:
    """What is trained of a model; by default everything."""

    image_level: int = 0
    """The lowest trained level of the image tower: 0 are the embeddings, then come the layers from 1 on, then
    the head; one more than the head if the tower is frozen."""
    text_level: int = 0
    has_matrix_grads: bool = True
    """False with LoRA: gradients pass through the matrices, but they get none."""
    is_distilled: bool = False
    """The frozen start embeds the batch, too."""


class _Part(NamedTuple):
    """Multiplications of a part of a tower, with matrices of weights and between tokens (attention)."""

    level: int
    matrices: int
    attention: int


def training_flops_per_pair(
    config: Any, num_captions: int = 1, trained: Trained | None = None, *, patch_dropout: float = 0.0
) -> float:
    """Operations to train on one photo with its captions; `config` is a `SiglipConfig`.

    The thin matrices of LoRA do not count.
    """
    trained = trained or Trained()
    image, caption = _image_parts(config.vision_config, patch_dropout), _caption_parts(config.text_config)
    forward = _forward(image) + num_captions * _forward(caption)
    image_backward = _backward(image, trained.image_level, trained)
    backward = image_backward + num_captions * _backward(caption, trained.text_level, trained)
    return 2.0 * (forward * (2 if trained.is_distilled else 1) + backward)


def _forward(parts: Sequence[_Part]) -> int:
    return sum(part.matrices + part.attention for part in parts)


def _backward(parts: Sequence[_Part], lowest_level: int, trained: Trained) -> int:
    with_grads = [part for part in parts if part.level >= lowest_level]
    of_weights = sum(part.matrices for part in with_grads) if trained.has_matrix_grads else 0
    # Pixels and tokens, the inputs of level 0, need no gradient.
    of_inputs = sum(part.matrices + 2 * part.attention for part in with_grads if part.level)
    return of_weights + of_inputs


def _image_parts(vision: Any, patch_dropout: float) -> list[_Part]:
    num_patches = (vision.image_size // vision.patch_size) ** 2
    hidden, inner = vision.hidden_size, vision.intermediate_size
    patches = num_patches * vision.num_channels * vision.patch_size**2 * hidden
    num_kept = num_kept_patches(num_patches, patch_dropout)
    # The pooling head: one query over all patches, then an MLP on one vector.
    pooling = 2 * num_kept * hidden**2 + 2 * hidden**2 + 2 * hidden * inner
    head = _Part(vision.num_hidden_layers + 1, pooling, 2 * num_kept * hidden)
    return [_Part(0, patches, 0), *_layers(vision, num_kept), head]


def _caption_parts(text: Any) -> list[_Part]:
    projection = text.hidden_size * getattr(text, "projection_size", text.hidden_size)
    return [*_layers(text, text.max_position_embeddings), _Part(text.num_hidden_layers + 1, projection, 0)]


def _layers(tower: Any, num_tokens: int) -> list[_Part]:
    """Projections and MLP, and attention over all tokens."""
    hidden, inner = tower.hidden_size, tower.intermediate_size
    matrices = num_tokens * (4 * hidden**2 + 2 * hidden * inner)
    attention = 2 * num_tokens**2 * hidden
    return [_Part(level, matrices, attention) for level in range(1, tower.num_hidden_layers + 1)]
