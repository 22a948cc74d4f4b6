"""A SigLIP configuration for tests of metrics."""

from __future__ import annotations

import transformers


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
