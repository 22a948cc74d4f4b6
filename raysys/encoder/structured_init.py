"""Initialisation for small image towers: each attention head starts as one tap of a 3 x 3 convolution.

A vision transformer trained from scratch on a small catalogue sees too few photos to learn that
neighbouring patches are related. This initialisation builds the relation in, and training may change it
(structured initialisation, after Zheng et al. 2024, "Structured Initialization for Vision Transformers").
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_SHARPNESS = 3.0
_NOISE_STD = 0.02


@torch.no_grad()
def init_local_attention(model: Any) -> None:
    """Initialise positions, queries and keys of the image tower so that each head attends to one neighbour.

    The neighbour is random: a shift of -1, 0 or 1 patches in y and in x. The position (y, x) of a patch is
    encoded by sines and cosines in the first head_dim channels. A shift by one patch is a rotation of that
    code: with identity keys and rotated queries, attention peaks at the shift.
    Raises: ValueError if the head size is not a multiple of 4.
    """
    config = model.config.vision_config
    head_dim = config.hidden_size // config.num_attention_heads
    if head_dim % 4:
        raise ValueError(f"a head size of {head_dim} channels is not a multiple of 4")
    side = config.image_size // config.patch_size
    frequencies = math.pi * (torch.arange(head_dim // 4) + 0.5) / max(head_dim // 4, side)
    tower = model.vision_model
    tower.embeddings.position_embedding.weight.zero_()
    tower.embeddings.position_embedding.weight[:, :head_dim] = _position_code(side, frequencies)
    for layer in tower.encoder.layers:
        _init_heads(layer.self_attn, head_dim, config.num_attention_heads, frequencies)


def _position_code(side: int, frequencies: Tensor) -> Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    down, right = y.flatten()[:, None] * frequencies, x.flatten()[:, None] * frequencies
    return torch.cat([down.cos(), down.sin(), right.cos(), right.sin()], dim=1)


def _init_heads(attention: Any, head_dim: int, num_heads: int, frequencies: Tensor) -> None:
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight.copy_(_NOISE_STD * torch.randn_like(weight))
    gain = math.sqrt(_SHARPNESS)
    for head in range(num_heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        down, right = (int(step) for step in torch.randint(-1, 2, (2,)))
        rotation = torch.block_diag(_rotation(down, frequencies), _rotation(right, frequencies))
        attention.q_proj.weight[rows, :head_dim] += gain * rotation
        attention.k_proj.weight[rows, :head_dim] += gain * torch.eye(head_dim)


def _rotation(step: int, frequencies: Tensor) -> Tensor:
    cosine, sine = torch.diag((frequencies * step).cos()), torch.diag((frequencies * step).sin())
    return torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])
