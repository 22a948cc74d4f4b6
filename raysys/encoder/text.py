"""Titles as the tokenizer receives them, and keys for equal captions."""

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
    """How a title becomes the model's input."""

    max_length: int
    lower_case: bool = True


def normalise_title(title: str, how: TextPreprocessing) -> str:
    """A title as the tokenizer sees it: NFKC, one space between words, lower case if wanted."""
    text = " ".join(unicodedata.normalize("NFKC", title).split())
    return text.lower() if how.lower_case else text


def to_tokens(tokenizer: Any, titles: Sequence[str], how: TextPreprocessing) -> Int64[ndarray, "b length"]:
    """Token ids of titles, padded to `max_length` without a mask (SigLIP attends to its padding)."""
    encoded = tokenizer(
        [normalise_title(title, how) for title in titles],
        padding="max_length",
        max_length=how.max_length,
        truncation=True,
        return_attention_mask=False,
    )
    return np.asarray(encoded["input_ids"], dtype=np.int64)


def caption_keys(captions: Sequence[str], how: TextPreprocessing) -> Int64[ndarray, " n"]:
    """One number a caption: equal for captions that are equal to the model, 0 for an empty one."""
    texts = [normalise_title(caption, how) for caption in captions]
    return np.array([text_key(text) if text else 0 for text in texts], dtype=np.int64)


def text_key(text: str) -> int:
    """A 64-bit hash of a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
