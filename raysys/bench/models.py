"""The models that benchmarks run, with random weights, and batches for them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from raysys.columns import CAPTION_KEYS, GROUP_KEYS, PIXELS, TOKENS
from raysys.config import Config
from raysys.encoder import start
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.synth import generate_items

# The published run: one million pairs, five epochs (Mercari, arXiv 2510.13359).
PUBLISHED_RUN_PAIRS = 1_000_000 * 5
_VOCABULARY_SIZE = 250_000  # of the multilingual SigLIP
_NUM_TITLES, _SEED = 2000, 7

Batch: TypeAlias = dict[str, Tensor]


def write_start(config: Config, folder: Path) -> None:
    """Write the checkpoint that `encoder.start` names; a tiny tokenizer learns from synthetic titles."""
    titles = (item.title for item in generate_items(_NUM_TITLES, _SEED))
    start.write_start(folder, config.encoder, titles)


def siglip_b16_config() -> Any:
    """The architecture of the multilingual SigLIP-B/16-256."""
    import transformers

    sizes = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    text = {"vocab_size": _VOCABULARY_SIZE, "max_position_embeddings": 64, "projection_size": 768}
    return transformers.SiglipConfig(
        text_config={**sizes, **text}, vision_config={**sizes, "image_size": 256, "patch_size": 16}
    )


def write_siglip_b16(folder: Path) -> None:
    """Replace the model in `folder` by a SigLIP-B/16-256 with random weights; the tokenizer stays."""
    import transformers

    model = transformers.SiglipModel(siglip_b16_config())
    torch.nn.init.constant_(model.logit_scale, math.log(10.0))
    torch.nn.init.constant_(model.logit_bias, -10.0)
    model.save_pretrained(folder)
    size_px = model.config.vision_config.image_size
    processor = transformers.SiglipImageProcessorPil(size={"height": size_px, "width": size_px})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    transformers.SiglipProcessor(processor, tokenizer).save_pretrained(folder)


def random_batch(model_config: Any, image: ImagePreprocessing, max_length: int, num_pairs: int) -> Batch:
    """A batch in the stream's format; every caption and every group is distinct."""
    generator = torch.Generator().manual_seed(_SEED)
    side, vocabulary = image.size_px, model_config.text_config.vocab_size
    keys = torch.arange(1, num_pairs + 1)
    return {
        PIXELS: torch.randint(0, 256, (num_pairs, side, side, 3), generator=generator, dtype=torch.uint8),
        TOKENS: torch.randint(3, vocabulary, (num_pairs, 1, max_length), generator=generator),
        CAPTION_KEYS: keys[:, None],
        GROUP_KEYS: keys,
    }
