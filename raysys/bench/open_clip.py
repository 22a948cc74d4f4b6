"""open_clip as a baseline: whether it can be imported, its loss, and its model in the sizes of ours."""

from __future__ import annotations

import importlib
import math
from typing import Any

_B16_256 = "ViT-B-16-SigLIP-i18n-256"


def import_failure() -> str:
    """Why open_clip cannot be imported here; empty if it can."""
    try:
        importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as error:
        return f"`import open_clip` failed: {str(error).splitlines()[0]}"
    return ""


def make_loss(rank: int = 0, world_size: int = 1) -> Any:
    """open_clip's sigmoid loss."""
    return importlib.import_module("open_clip").loss.SigLipLoss(rank=rank, world_size=world_size)


def make_model(config: Any) -> Any:
    """open_clip's model in the sizes of a `SiglipConfig`, with random weights.

    B/16-256 is open_clip's own SigLIP; other sizes are built from open_clip's towers with the same pooling.
    """
    open_clip = importlib.import_module("open_clip")
    vision, text = config.vision_config, config.text_config
    if (vision.hidden_size, vision.num_hidden_layers) == (768, 12):
        return open_clip.create_model(_B16_256, pretrained=None, output_dict=True)
    return open_clip.model.CustomTextCLIP(
        embed_dim=vision.hidden_size,
        vision_cfg={
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "attentional_pool": True,
            "attn_pooler_queries": 1,
            "attn_pooler_heads": vision.num_attention_heads,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **_tower_sizes(vision),
        },
        text_cfg={
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "heads": text.num_attention_heads,
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
            **_tower_sizes(text),
        },
        init_logit_scale=math.log(10.0),
        init_logit_bias=-10.0,
        output_dict=True,
    )


def _tower_sizes(tower: Any) -> dict[str, Any]:
    return {
        "width": tower.hidden_size,
        "layers": tower.num_hidden_layers,
        "mlp_ratio": tower.intermediate_size / tower.hidden_size,
    }
