"""`encoder.start: scratch`: a small SigLIP with random weights and a small tokenizer, built without a hub.

The folder has the layout of a hub checkpoint: a `save_pretrained` model, a processor and a SentencePiece
tokenizer trained on the titles of the training split.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
import torch
import transformers

from raysys.config.schema import ScratchConfig
from raysys.encoder.hub import silence_transformers
from raysys.encoder.structured_init import init_local_attention
from raysys.errors import InputError

_MIN_SIZE_WITH_BYTES = 1000  # of a vocabulary in which 256 pieces stand for characters that no title had
_UNUSED_PAD, _EOS, _UNK = 0, 1, 2  # titles are padded with the end-of-text piece, as in SigLIP


def build_scratch(folder: Path, titles: Iterable[str], size: ScratchConfig, *, seed: int) -> None:
    """Write a SigLIP checkpoint with random weights to `folder`; equal arguments give equal bytes.

    `titles` are normalised already. Raises: InputError if they are too few to train a tokenizer.
    """
    silence_transformers()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer(folder, titles, size)
    processor = transformers.SiglipImageProcessorPil(
        size={"height": size.image_size_px, "width": size.image_size_px}
    )
    model = _random_model(size, vocab_size=len(tokenizer), seed=seed)
    model.save_pretrained(folder)
    transformers.SiglipProcessor(processor, tokenizer).save_pretrained(folder)


def _train_tokenizer(
    folder: Path, titles: Iterable[str], size: ScratchConfig
) -> transformers.SiglipTokenizer:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(titles),
            model_writer=model,
            vocab_size=size.vocab_size,
            hard_vocab_limit=False,  # a small number of titles gives fewer pieces
            model_type="unigram",
            character_coverage=0.9995,
            byte_fallback=size.vocab_size >= _MIN_SIZE_WITH_BYTES,
            pad_id=_UNUSED_PAD,
            eos_id=_EOS,
            unk_id=_UNK,
            bos_id=-1,
            num_threads=1,  # with several threads the pieces would depend on timing
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"encoder.start: scratch: cannot train a tokenizer on these titles ({error}); pack more items"
        ) from error
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    return transformers.SiglipTokenizer(
        str(path), model_max_length=size.max_length, model_input_names=["input_ids"], do_lower_case=False
    )


def _random_model(size: ScratchConfig, *, vocab_size: int, seed: int) -> transformers.SiglipModel:
    tower = {"hidden_size": size.hidden_size, "num_attention_heads": size.num_heads}
    config = transformers.SiglipConfig(
        text_config={
            **tower,
            "intermediate_size": 4 * size.hidden_size,
            "num_hidden_layers": size.text_num_layers,
            "vocab_size": vocab_size,
            "max_position_embeddings": size.max_length,
            "pad_token_id": _EOS,
            "bos_token_id": None,
            "eos_token_id": _EOS,
            "projection_size": size.hidden_size,
        },
        vision_config={
            **tower,
            "intermediate_size": size.mlp_ratio * size.hidden_size,
            "num_hidden_layers": size.num_layers,
            "image_size": size.image_size_px,
            "patch_size": size.patch_size_px,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.SiglipModel(config)
        init_local_attention(model)
    # transformers initialises both with 0; this scale is from SigLIP (Zhai et al. 2023, section 3.2).
    torch.nn.init.constant_(model.logit_scale, math.log(10.0))
    torch.nn.init.constant_(model.logit_bias, size.logit_bias)
    return model
