"""The last CPU stage of the stream: compressed rows become the arrays that a training step eats."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from numpy import ndarray

from raysys import storage
from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import (
    ImagePreprocessing,
    TextPreprocessing,
    decode_image,
    normalise_title,
    to_pixels,
    to_tokens,
)
from raysys.encoder.siglip import load_tokenizer
from raysys.records import (
    ATTRIBUTES,
    CAPTION_KEYS,
    CONTENT_HASH,
    EPOCH,
    IMAGE,
    ITEM_ID,
    PIXELS,
    STREAM_POSITION,
    TITLE,
    TOKENS,
    AttributeValue,
)
from raysys.stream.augment import augmented_pixels, item_rng


@dataclass(frozen=True)
class TrainingDecoder:
    """Decodes a block of rows: photos augmented and at the model's size, titles as tokens.

    `encoder_uri` is the bundle whose tokenizer is used; each process loads it once.
    """

    encoder_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    augment: AugmentConfig
    caption_attributes: tuple[str, ...]
    seed: int

    def __call__(self, block: pa.Table) -> dict[str, ndarray]:
        """Arrays of `pixels`, `tokens`, `caption_keys` and position, a row for each row of the block."""
        rows = block.select([ITEM_ID, IMAGE, EPOCH]).to_pylist()
        captions = self._captions(block)
        tokens = [to_tokens(_tokenizer(self.encoder_uri), texts, self.text) for texts in captions]
        pixels = [self._pixels(row[ITEM_ID], row[IMAGE], row[EPOCH]) for row in rows]
        return {
            PIXELS: np.stack(pixels),
            TOKENS: np.stack(tokens, axis=1),
            CAPTION_KEYS: np.stack([caption_keys(texts, self.text) for texts in captions], axis=1),
            STREAM_POSITION: block.column(STREAM_POSITION).to_numpy(),
        }

    def _captions(self, block: pa.Table) -> list[list[str]]:
        """The title of every row, then its value of each caption attribute ("" if it has none)."""
        attributes = [json.loads(text) for text in block.column(ATTRIBUTES).to_pylist()]
        values = [[row.get(name) for row in attributes] for name in self.caption_attributes]
        return [
            block.column(TITLE).to_pylist(),
            *([_as_text(value) for value in column] for column in values),
        ]

    def _pixels(self, item_id: str, image: bytes, epoch: int) -> ndarray:
        rng = item_rng(self.seed, epoch, item_id)
        return augmented_pixels(decode_image(image), self.image, self.augment, rng)


@dataclass(frozen=True)
class EmbeddingDecoder:
    """Decodes a block of rows for embedding: every photo as it is, at the model's size."""

    image: ImagePreprocessing

    def __call__(self, block: pa.Table) -> pa.Table:
        """The block with its photos replaced by their pixels, as bytes, and by a hash of what they were."""
        photos, titles = block.column(IMAGE).to_pylist(), block.column(TITLE).to_pylist()
        pixels = [to_pixels(decode_image(photo), self.image).tobytes() for photo in photos]
        hashes = [content_hash(photo, title) for photo, title in zip(photos, titles, strict=True)]
        decoded = block.drop_columns([IMAGE]).append_column(PIXELS, pa.array(pixels, pa.large_binary()))
        return decoded.append_column(CONTENT_HASH, pa.array(hashes))


def content_hash(photo: bytes, title: str) -> str:
    """SHA-256 (hex) over photo and title: a listing with an equal one needs no second embedding."""
    return hashlib.sha256(photo + b"\0" + title.encode()).hexdigest()


def caption_keys(captions: Sequence[str], how: TextPreprocessing) -> Int64[ndarray, " n"]:
    """One number a caption: equal for captions that are equal to the model, 0 for an empty one."""
    texts = [normalise_title(caption, how) for caption in captions]
    digests = [hashlib.sha256(text.encode()).digest()[:8] if text else bytes(8) for text in texts]
    return np.array([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=np.int64)


def _as_text(value: AttributeValue) -> str:
    return "" if value is None else str(value)


@functools.lru_cache(maxsize=4)
def _tokenizer(encoder_uri: str) -> Any:
    with storage.readable_folder(encoder_uri) as folder:
        return load_tokenizer(folder)
