"""The last CPU stage of the stream: compressed rows become the arrays that a training step eats."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from numpy import ndarray

from raysys import storage
from raysys.columns import (
    ATTRIBUTES,
    CAPTION_KEYS,
    CONTENT_HASH,
    DETAIL,
    EPOCH,
    GROUP,
    GROUP_KEYS,
    IMAGE,
    ITEM_ID,
    PIXELS,
    REASON,
    SAMPLE_NUMBER,
    SHARD_NUMBER,
    SKIP_REASONS,
    SKIPPED,
    STREAM_POSITION,
    TITLE,
    TOKENS,
    AttributeValue,
)
from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImagePreprocessing, decode_image, photo_pixels
from raysys.encoder.text import TextPreprocessing, caption_keys, text_key, to_tokens
from raysys.errors import UnreadableImage
from raysys.stream.augment import augmented_pixels, item_rng

_PLACE = (EPOCH, STREAM_POSITION, SHARD_NUMBER, SAMPLE_NUMBER)


@dataclass(frozen=True)
class TrainingDecoder:
    """Decodes a block of rows: photos augmented and at the model's size, titles as tokens.

    `encoder_uri` is the bundle whose tokenizer is used; each process loads it once. A row that cannot be
    used comes out black and without captions, which no loss counts, and says why in `skipped`.
    """

    encoder_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    augment: AugmentConfig
    caption_attributes: tuple[str, ...]
    seed: int
    scaled: bool = True  # whether JPEGs may be decoded at a part of their size

    def __call__(self, block: pa.Table) -> dict[str, ndarray]:
        """Arrays of pixels, tokens, keys, position and place, a row for each row of the block."""
        images = block.column(IMAGE)
        reasons = block.column(REASON).to_pylist()
        pixels = np.zeros((len(block), self.image.size_px, self.image.size_px, 3), np.uint8)
        names = zip(block.column(ITEM_ID).to_pylist(), block.column(EPOCH).to_pylist(), strict=True)
        for row, (item_id, epoch) in enumerate(names):
            if not reasons[row]:
                try:
                    pixels[row] = self._pixels(item_id, images[row].as_buffer(), epoch)
                except UnreadableImage:
                    reasons[row] = "unreadable_photo"
        captions = [self._captions(row, reason) for row, reason in zip(_texts(block), reasons, strict=True)]
        kinds = list(zip(*captions, strict=True))
        tokens = [to_tokens(_tokenizer(self.encoder_uri), texts, self.text) for texts in kinds]
        return {
            PIXELS: pixels,
            TOKENS: np.stack(tokens, axis=1),
            CAPTION_KEYS: np.stack([caption_keys(texts, self.text) for texts in kinds], axis=1),
            GROUP_KEYS: _group_keys(block),
            SKIPPED: np.array([SKIP_REASONS.index(r) + 1 if r else 0 for r in reasons], np.int64),
            **{name: block.column(name).to_numpy() for name in _PLACE},
        }

    def _captions(self, row: tuple[str, str], reason: str) -> list[str]:
        """The title of a row, then its value of each caption attribute ("" if it has none)."""
        if reason:
            return [""] * (1 + len(self.caption_attributes))
        title, attributes = row
        said = json.loads(attributes) if self.caption_attributes else {}
        return [title, *(_as_text(said.get(name)) for name in self.caption_attributes)]

    def _pixels(self, item_id: str, image: pa.Buffer, epoch: int) -> ndarray:
        rng = item_rng(self.seed, epoch, item_id)
        # A crop shows a part: so much more of the photo has to be there.
        at_least_px = math.ceil(self.image.size_px / math.sqrt(self.augment.crop_min_area))
        picture = decode_image(image, at_least_px=at_least_px if self.scaled else None)
        return augmented_pixels(picture, self.image, self.augment, rng)


@dataclass(frozen=True)
class EmbeddingDecoder:
    """Decodes a block of rows for embedding: every photo as it is, at the model's size."""

    image: ImagePreprocessing

    def __call__(self, block: pa.Table) -> pa.Table:
        """The block with its photos replaced by their pixels, as bytes, and by a hash of what they were.

        A row that cannot be used has no pixels, and a reason.
        """
        photos, titles = block.column(IMAGE), block.column(TITLE).to_pylist()
        reasons, details = block.column(REASON).to_pylist(), block.column(DETAIL).to_pylist()
        pixels: list[bytes] = [b""] * len(block)
        for row, reason in enumerate(reasons):
            if not reason:
                try:
                    pixels[row] = photo_pixels(photos[row].as_buffer(), self.image).tobytes()
                except UnreadableImage as error:
                    reasons[row], details[row] = "unreadable_photo", str(error)
        hashes = [content_hash(photos[row].as_buffer(), title) for row, title in enumerate(titles)]
        decoded = block.drop_columns([IMAGE, REASON, DETAIL])
        decoded = decoded.append_column(PIXELS, pa.array(pixels, pa.large_binary()))
        decoded = decoded.append_column(REASON, pa.array(reasons, pa.string()))
        decoded = decoded.append_column(DETAIL, pa.array(details, pa.string()))
        return decoded.append_column(CONTENT_HASH, pa.array(hashes, pa.string()))


def content_hash(photo: bytes | pa.Buffer, title: str) -> str:
    """SHA-256 (hex) over photo and title: a listing with an equal one needs no second embedding."""
    digest = hashlib.sha256(photo)
    digest.update(b"\0" + title.encode())
    return digest.hexdigest()


def _texts(block: pa.Table) -> list[tuple[str, str]]:
    return list(zip(block.column(TITLE).to_pylist(), block.column(ATTRIBUTES).to_pylist(), strict=True))


def _group_keys(block: pa.Table) -> Int64[ndarray, " n"]:
    """A number for the group of each row; a row without one gets its place in the stream, below zero."""
    groups = block.column(GROUP).to_pylist()
    positions = block.column(STREAM_POSITION).to_pylist()
    return np.array(
        [
            text_key(group) >> 1 & (2**62 - 1) if group else -1 - position
            for group, position in zip(groups, positions, strict=True)
        ],
        np.int64,
    )


def _as_text(value: AttributeValue) -> str:
    return "" if value is None else str(value)


@functools.lru_cache(maxsize=4)
def _tokenizer(encoder_uri: str) -> Any:
    from raysys.encoder.hub import load_tokenizer  # transformers takes seconds to import

    with storage.readable_folder(encoder_uri) as folder:
        return load_tokenizer(folder)
