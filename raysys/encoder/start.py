"""The checkpoint that training starts from: a hub id, a folder, or `tiny`, written to one folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.config.schema import EncoderConfig
from raysys.encoder import siglip, tiny
from raysys.encoder.hub import load, load_tokenizer, silence_transformers
from raysys.encoder.text import TextPreprocessing, normalise_title
from raysys.errors import InputError

TINY = "tiny"


def text_preprocessing(section: EncoderConfig) -> TextPreprocessing:
    """How titles are prepared for the checkpoint at `encoder.start`."""
    if section.start == TINY:
        lower_case = section.lower_case is not False
        return TextPreprocessing(max_length=section.tiny.max_length, lower_case=lower_case)
    silence_transformers()
    config = siglip.load_config(section.start, section.revision)
    return TextPreprocessing(
        max_length=int(config.text_config.max_position_embeddings),
        lower_case=_default_lower_case(section) if section.lower_case is None else section.lower_case,
    )


def write_start(folder: Path, section: EncoderConfig, titles: Iterable[str]) -> None:
    """Write the checkpoint at `encoder.start` to `folder`; `tiny` trains its tokenizer on `titles`."""
    if section.start == TINY:
        preprocessing = text_preprocessing(section)
        normalised = (normalise_title(title, preprocessing) for title in titles)
        tiny.build_tiny(folder, normalised, section.tiny, seed=section.seed)
    else:
        _copy_pretrained(section, folder)


def _default_lower_case(section: EncoderConfig) -> bool:
    """The setting stored in an EncoderBundle; True for other checkpoints, as SigLIP was trained.

    The tokenizer does not show it: some lower-case titles themselves, others leave it to the caller.
    """
    if storage.exists(storage.join(section.start, artifacts.MANIFEST)):
        manifest = artifacts.open_artifact(section.start, EncoderBundleManifest)
        return TextPreprocessing(**manifest.text).lower_case
    return True


def _copy_pretrained(section: EncoderConfig, folder: Path) -> None:
    model = siglip.load_model(section.start, section.revision)
    tokenizer = load_tokenizer(section.start, section.revision)
    _require_matching_tokenizer(tokenizer, model.config.text_config.vocab_size, section.start)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = load(
        section.start,
        lambda: transformers.AutoImageProcessor.from_pretrained(
            section.start, revision=section.revision, backend="pil"
        ),
    )
    processor.save_pretrained(folder)


def _require_matching_tokenizer(tokenizer: Any, vocab_size: int, source: str) -> None:
    """Refuse a tokenizer that produces ids without an embedding in the text tower.

    The special-token ids of config.json are not checked: in SigLIP's own checkpoints they belong to another
    tokenizer, and nothing uses them.
    """
    ids = {
        "pieces": max(tokenizer.get_vocab().values()),
        "pad token": tokenizer.pad_token_id or 0,
        "end token": tokenizer.eos_token_id or 0,
    }
    kind, highest = max(ids.items(), key=lambda item: item[1])
    if highest >= vocab_size:
        raise InputError(
            f"{source}: the tokenizer (tokenizer.json, spiece.model) has ids up to {highest} ({kind}), "
            f"the text tower (config.json: text_config.vocab_size) has embeddings for 0 to {vocab_size - 1}; "
            "use the tokenizer that the checkpoint was trained with"
        )
