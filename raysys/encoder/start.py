"""Where a model starts: a hub id, a folder, or `tiny`; each becomes a folder that looks the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import transformers

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.config.schema import EncoderConfig
from raysys.encoder import siglip, tiny
from raysys.encoder.text import TextPreprocessing, normalise_title
from raysys.encoder.tokenizer import load_tokenizer, quiet_transformers
from raysys.errors import InputError

TINY = "tiny"


def text_preprocessing(section: EncoderConfig) -> TextPreprocessing:
    """How titles are prepared for the model that `encoder.start` names."""
    if section.start == TINY:
        lower_case = section.lower_case is not False
        return TextPreprocessing(max_length=section.tiny.max_length, lower_case=lower_case)
    quiet_transformers()
    config = siglip.load_config(section.start, section.revision)
    return TextPreprocessing(
        max_length=int(config.text_config.max_position_embeddings),
        lower_case=_wants_lower_case(section) if section.lower_case is None else section.lower_case,
    )


def fill_start(section: EncoderConfig, titles: Callable[[], Iterable[str]]) -> Callable[[Path], None]:
    """A function that writes the starting checkpoint into a folder; `titles` are read only for `tiny`."""

    def fill(folder: Path) -> None:
        if section.start == TINY:
            how = text_preprocessing(section)
            prepared = (normalise_title(title, how) for title in titles())
            tiny.build_tiny(folder, prepared, section.tiny, seed=section.seed)
        else:
            _copy_checkpoint(section, folder)

    return fill


def _wants_lower_case(section: EncoderConfig) -> bool:
    """What a bundle of ours says of itself; every other SigLIP was trained on lower-cased titles.

    No tokenizer can be asked: some do it themselves, the others leave it to the caller.
    """
    if storage.exists(storage.join(section.start, artifacts.MANIFEST)):
        manifest = artifacts.open_artifact(section.start, EncoderBundleManifest)
        return TextPreprocessing(**manifest.text).lower_case
    return True


def _copy_checkpoint(section: EncoderConfig, folder: Path) -> None:
    model = siglip.load_model(section.start, section.revision)
    tokenizer = load_tokenizer(section.start, section.revision)
    _require_fitting(tokenizer, model.config.text_config.vocab_size, section.start)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(
        section.start, revision=section.revision, backend="pil"
    )
    processor.save_pretrained(folder)


def _require_fitting(tokenizer: Any, vocab_size: int, source: str) -> None:
    """Refuse a tokenizer that gives ids for which the text tower has no embedding.

    The ids in config.json do not count: SigLIP's own are those of another tokenizer, and are not used.
    """
    ids = {
        "pieces": max(tokenizer.get_vocab().values()),
        "pad token": tokenizer.pad_token_id or 0,
        "end token": tokenizer.eos_token_id or 0,
    }
    what, highest = max(ids.items(), key=lambda item: item[1])
    if highest >= vocab_size:
        raise InputError(
            f"{source}: its tokenizer (tokenizer.json, spiece.model) gives ids up to {highest} (its {what}), "
            f"its text tower (config.json: text_config.vocab_size) has embeddings for 0 to {vocab_size - 1}; "
            "give a checkpoint with the tokenizer that it was trained with"
        )
