"""Attention in float32 under autocast, for CPUs: there its backward pass in bfloat16 takes half of a step.

`model.set_attn_implementation(FLOAT32_ATTENTION)` chooses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

FLOAT32_ATTENTION = "raysys_float32"  # its name in transformers


def _float32_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    with torch.autocast(query.device.type, enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)
    return output.to(query.dtype), None


AttentionInterface.register(FLOAT32_ATTENTION, _float32_attention)
