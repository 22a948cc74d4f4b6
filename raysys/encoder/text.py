"""Titles as token ids, and integer keys that are equal for equal captions."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray


@dataclass(frozen=True)
class TextPreprocessing:
    """How a title becomes the input of the text tower."""

    max_length: int
    lower_case: bool = True


def to_tokens(
    tokenizer: Any, titles: Sequence[str], preprocessing: TextPreprocessing
) -> Int64[ndarray, "b length"]:
    """Token ids of titles, padded to `max_length` without a mask (SigLIP attends to its padding)."""
    if not titles:  # tokenizers refuse an empty list
        return np.empty((0, preprocessing.max_length), np.int64)
    encoded = tokenizer(
        [normalise_title(title, preprocessing) for title in titles],
        padding="max_length",
        max_length=preprocessing.max_length,
        truncation=True,
        return_attention_mask=False,
    )
    return np.asarray(encoded["input_ids"], dtype=np.int64)


def caption_keys(captions: Sequence[str], preprocessing: TextPreprocessing) -> Int64[ndarray, " n"]:
    """One integer a caption: equal if the captions are equal after preprocessing, 0 for an empty caption."""
    texts = [normalise_title(caption, preprocessing) for caption in captions]
    return np.array([text_key(text) if text else 0 for text in texts], dtype=np.int64)


def normalise_title(title: str, preprocessing: TextPreprocessing) -> str:
    """The title that the tokenizer receives: NFKC, single spaces between words, lower case if configured."""
    text = " ".join(unicodedata.normalize("NFKC", title).split())
    return text.lower() if preprocessing.lower_case else text


def text_key(text: str) -> int:
    """A 64-bit hash of a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
