"""The last CPU stage of the stream: blocks of compressed photos and titles become arrays for the model."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from numpy import ndarray
from PIL import Image

from raysys import storage
from raysys.columns import (
    ATTRIBUTES,
    CAPTION_KEYS,
    CONTENT_HASH,
    DETAIL,
    EMBEDDING,
    EPOCH,
    GROUP,
    GROUP_KEYS,
    IMAGE,
    ITEM_ID,
    PATCH_SEEDS,
    PIXELS,
    REASON,
    SAMPLE_NUMBER,
    SHARD_NUMBER,
    SKIP_REASONS,
    SKIPPED,
    STREAM_POSITION,
    TEACHER,
    TITLE,
    TOKENS,
    content_hash,
)
from raysys.config.schema import AugmentConfig
from raysys.encoder.preprocess import ImageBytes, ImagePreprocessing, PhotoPreparation, decode_image
from raysys.encoder.text import TextPreprocessing, caption_keys, text_key, to_tokens
from raysys.errors import UnreadableImage
from raysys.stream.augment import augmented_pixels, item_rng
from raysys.stream.earlier_vectors import EarlierVectors
from raysys.stream.teacher import TeacherVectors
from raysys.types import AttributeValue

_COORDINATES = (EPOCH, STREAM_POSITION, SHARD_NUMBER, SAMPLE_NUMBER)
_UNREADABLE = "unreadable_photo"


@dataclass(frozen=True)
class TrainingDecoder:
    """Decodes a block for training: augmented photos at the model's size, titles as tokens.

    `encoder_uri` is the bundle that provides the tokenizer; each process loads it once. A skipped sample gets
    black pixels and no captions, which the loss ignores, and its reason in the column `skipped`.
    """

    encoder_uri: str
    image: ImagePreprocessing
    text: TextPreprocessing
    augment: AugmentConfig
    caption_attributes: tuple[str, ...]
    seed: int
    scaled: bool = True  # decode large JPEGs at 1/2, 1/4 or 1/8 of their size
    teacher: TeacherVectors | None = None  # adds the column `teacher`
    with_patch_seeds: bool = False  # adds the column `patch_seeds`

    def __call__(self, block: pa.Table) -> dict[str, ndarray]:
        """Arrays of pixels, tokens, keys and coordinates; one row for each row of the block."""
        photos = block.column(IMAGE)
        reasons = block.column(REASON).to_pylist()
        pixels = np.zeros((len(block), self.image.size_px, self.image.size_px, 3), np.uint8)
        samples = zip(block.column(ITEM_ID).to_pylist(), block.column(EPOCH).to_pylist(), strict=True)
        for row, (item_id, epoch) in enumerate(samples):
            if not reasons[row]:
                try:
                    pixels[row] = self._pixels(item_id, photos[row].as_buffer(), epoch)
                except UnreadableImage:
                    reasons[row] = _UNREADABLE
        captions = [self._captions(*row) for row in zip(*_texts(block), reasons, strict=True)]
        captions_by_kind = list(zip(*captions, strict=True))
        tokenizer = _load_tokenizer(self.encoder_uri)
        tokens = [to_tokens(tokenizer, texts, self.text) for texts in captions_by_kind]
        return {
            PIXELS: pixels,
            TOKENS: np.stack(tokens, axis=1),
            CAPTION_KEYS: np.stack([caption_keys(texts, self.text) for texts in captions_by_kind], axis=1),
            GROUP_KEYS: _group_keys(block),
            SKIPPED: np.array([SKIP_REASONS.index(r) + 1 if r else 0 for r in reasons], np.int64),
            **{name: block.column(name).to_numpy() for name in _COORDINATES},
            **({TEACHER: self.teacher.of_block(block)} if self.teacher is not None else {}),
            **({PATCH_SEEDS: self._patch_seeds(block)} if self.with_patch_seeds else {}),
        }

    def _pixels(self, item_id: str, photo: pa.Buffer, epoch: int) -> ndarray:
        rng = item_rng(self.seed, epoch, item_id)
        decoded = decode_for_training(photo, self.image, self.augment, scaled=self.scaled)
        return augmented_pixels(decoded, self.image, self.augment, rng)

    def _patch_seeds(self, block: pa.Table) -> Int64[ndarray, " n"]:
        """Different for every photo and epoch, and for other seeds of the run."""
        return np.asarray(block.column(STREAM_POSITION).to_numpy() + (self.seed % 2**16 << 44))

    def _captions(self, title: str, attributes_json: str, reason: str) -> list[str]:
        """The title, then each caption attribute ("" if missing); only "" for a skipped sample."""
        if reason:
            return [""] * (1 + len(self.caption_attributes))
        attributes = json.loads(attributes_json) if self.caption_attributes else {}
        return [title, *(_as_text(attributes.get(name)) for name in self.caption_attributes)]


def decode_for_training(
    photo: ImageBytes, image: ImagePreprocessing, augment: AugmentConfig, *, scaled: bool
) -> Image.Image:
    """The photo, large enough for every crop of the augmentation; a large JPEG may be `scaled`.

    Raises: UnreadableImage.
    """
    # A crop uses a part of the photo, so the photo must be decoded larger by that factor.
    at_least_px = math.ceil(image.size_px / math.sqrt(augment.crop_min_area))
    return decode_image(photo, at_least_px=at_least_px if scaled else None)


@dataclass(frozen=True)
class EmbeddingDecoder:
    """Decodes a block for embedding: every photo without augmentation, at the model's size."""

    image: PhotoPreparation
    earlier: EarlierVectors | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """The block with pixels (as bytes), a content hash and `embedding` in place of the photos.

        A row whose content the earlier set has gets its vector and no pixels; other rows have no vector. A
        row whose photo cannot be decoded has no pixels, and a reason.
        """
        photos, titles = block.column(IMAGE), block.column(TITLE).to_pylist()
        reasons, details = block.column(REASON).to_pylist(), block.column(DETAIL).to_pylist()
        hashes = [content_hash(photos[row].as_buffer(), title) for row, title in enumerate(titles)]
        vectors = self.earlier.of(hashes) if self.earlier else [None] * len(block)
        pixels: list[bytes] = [b""] * len(block)
        for row, reason in enumerate(reasons):
            if not reason and vectors[row] is None:
                try:
                    pixels[row] = self.image(photos[row].as_buffer()).tobytes()
                except UnreadableImage as error:
                    reasons[row], details[row] = _UNREADABLE, str(error)
        decoded = block.drop_columns([IMAGE, REASON, DETAIL])
        decoded = decoded.append_column(PIXELS, pa.array(pixels, pa.large_binary()))
        decoded = decoded.append_column(REASON, pa.array(reasons, pa.string()))
        decoded = decoded.append_column(DETAIL, pa.array(details, pa.string()))
        decoded = decoded.append_column(CONTENT_HASH, pa.array(hashes, pa.string()))
        return decoded.append_column(EMBEDDING, pa.array(vectors, pa.list_(pa.float32())))


def _texts(block: pa.Table) -> tuple[list[str], list[str]]:
    """Titles and attributes (JSON)."""
    return block.column(TITLE).to_pylist(), block.column(ATTRIBUTES).to_pylist()


def _as_text(value: AttributeValue) -> str:
    return "" if value is None else str(value)


def _group_keys(block: pa.Table) -> Int64[ndarray, " n"]:
    """A non-negative key per group; rows without a group get unique negative ones."""
    groups = block.column(GROUP).to_pylist()
    positions = block.column(STREAM_POSITION).to_pylist()
    return np.array(
        [
            text_key(group) >> 1 & (2**62 - 1) if group else -1 - position
            for group, position in zip(groups, positions, strict=True)
        ],
        np.int64,
    )


@functools.lru_cache(maxsize=4)
def _load_tokenizer(encoder_uri: str) -> Any:
    from raysys.encoder.hub import load_tokenizer  # transformers takes seconds to import

    with storage.readable_folder(encoder_uri) as folder:
        return load_tokenizer(folder)
