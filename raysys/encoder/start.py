"""The checkpoint that training starts from, in one folder: a hub id, a folder, `tiny` or `scratch`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.artifacts.shipped import TINY_FOLDER, tiny_checkpoint
from raysys.config.schema import EncoderConfig
from raysys.encoder import siglip
from raysys.encoder.hub import load, load_tokenizer, silence_transformers
from raysys.encoder.scratch import build_scratch
from raysys.encoder.text import TextPreprocessing, normalise_title
from raysys.errors import InputError

TINY, SCRATCH = "tiny", "scratch"


def text_preprocessing(section: EncoderConfig) -> TextPreprocessing:
    """How titles are prepared for the checkpoint at `encoder.start`."""
    if section.start == SCRATCH:
        lower_case = section.lower_case is not False
        return TextPreprocessing(max_length=section.scratch.max_length, lower_case=lower_case)
    silence_transformers()
    section = _with_path(section)
    config = siglip.load_config(section.start, section.revision)
    return TextPreprocessing(
        max_length=int(config.text_config.max_position_embeddings),
        lower_case=_default_lower_case(section) if section.lower_case is None else section.lower_case,
    )


def write_start(folder: Path, section: EncoderConfig, titles: Iterable[str]) -> None:
    """Write the checkpoint at `encoder.start` to `folder`; `scratch` trains its tokenizer on `titles`.

    Raises: as `load_model`; DamagedData if the files of `tiny` have changed since the installation.
    """
    if section.start == SCRATCH:
        preprocessing = text_preprocessing(section)
        normalised = (normalise_title(title, preprocessing) for title in titles)
        build_scratch(folder, normalised, section.scratch, seed=section.seed)
    else:
        _copy_pretrained(_with_path(section), folder)


def _with_path(section: EncoderConfig) -> EncoderConfig:
    """The section with the path of the files instead of `tiny`."""
    if section.start != TINY:
        return section
    tiny_checkpoint()
    return section.model_copy(update={"start": str(TINY_FOLDER)})


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
