"""The parity gate: golden items get the same vector in training, in the batch and in the service.

Training decodes photos at a smaller size, and training and batch may compute in bfloat16, so that vectors
differ a little. The gate measures by how much, on a sample of the catalogue, before the rest is embedded. The
reference is what the service does with an uploaded photo: one at a time, in float32 (on a GPU the service
computes in bfloat16 and differs by 2e-5). The batch's vectors are those that would be stored, so vectors that
are carried over from an earlier set are measured, too.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32
from numpy import ndarray

from raysys.artifacts import Parity
from raysys.artifacts.embedding_set import bad_rows
from raysys.columns import IMAGE, ITEM_ID, SHARD
from raysys.config.schema import AugmentConfig, Config
from raysys.embed.actor import block_vectors
from raysys.embed.options import EncoderOptions
from raysys.embed.shared_encoder import SharedEncoder, open_encoder
from raysys.encoder.image_encoder import open_image_encoder
from raysys.encoder.preprocess import ImageBytes, decode_image, to_pixels
from raysys.encoder.siglip import SiglipEncoder
from raysys.errors import MissingError, ParityFailed, UnreadableImage
from raysys.parallel import Parallel
from raysys.shards.reader import Item, ShardRef, open_shard
from raysys.stream.blocks import SCHEMA, BlockBuilder
from raysys.stream.decode import EmbeddingDecoder, decode_for_training

_SHARDS = 4  # that are read for the sample
_REMEDIES = {
    "batch": "set embed.precision=fp32 and embed.reuse=none",
    "training": "set train.precision=fp32 or stream.scaled_decoding=false",
}


@dataclass(frozen=True)
class ParityPaths:
    """The settings that determine how a photo becomes a vector in training and in the batch."""

    batch: EncoderOptions
    training_precision: str | None  # None for an encoder that was not trained here
    scaled_decoding: bool
    augment: AugmentConfig

    @classmethod
    def of(cls, config: Config) -> ParityPaths:
        """Those of a configuration; all on the device that embeds."""
        is_trained_here = config.embed.encoder is None
        return cls(
            batch=EncoderOptions.of(config.embed),
            training_precision=config.train.precision if is_trained_here else None,
            scaled_decoding=config.stream.scaled_decoding,
            augment=config.train.augment,
        )


def check_parity(
    source: str,
    golden: pa.Table,
    paths: ParityPaths,
    tolerance: float,
    parallel: Parallel,
    decoder: EmbeddingDecoder,
) -> Parity | None:
    """Measure the golden items, in one piece of work; None without an item that the service can embed.

    Raises: ParityFailed above the tolerance.
    """
    (distances,) = parallel(functools.partial(measure, source, paths, decoder), [golden])
    ids, shards = golden.column(ITEM_ID).to_pylist(), golden.column(SHARD).to_pylist()
    largest, worst_items = dict[str, float](), dict[str, str]()
    for path, of_items in distances.items():
        if not of_items:
            return None
        row = max(of_items, key=lambda row: (math.isnan(of_items[row]), of_items[row]))
        if not of_items[row] <= tolerance:  # a NaN is above any tolerance
            raise ParityFailed(
                f"{source}: the vector of item '{ids[row]}' ({shards[row]}) in {path} differs from that "
                f"of the service by {of_items[row]:.2g} (1 - cosine), above embed.parity_tolerance "
                f"{tolerance:g}; {_REMEDIES[path]}, or raise the tolerance"
            )
        largest[path], worst_items[path] = of_items[row], ids[row]
    num_items = len(distances["batch"])
    return Parity(num_items=num_items, tolerance=tolerance, largest=largest, worst_items=worst_items)


def measure(
    source: str, paths: ParityPaths, decoder: EmbeddingDecoder, golden: pa.Table
) -> dict[str, dict[int, float]]:
    """For `batch` and `training` the distance (1 - cosine) of each row's vector from that of the service.

    `training` is measured only for the encoder that was trained here.
    Rows that the service cannot embed, because of weights that are not finite, are left out.
    """
    photos = [row.as_buffer() for row in golden.column(IMAGE)]
    encoder = open_image_encoder(source, device=paths.batch.device)
    served = np.concatenate([encoder.embed_photos([photo]) for photo in photos])
    vectors = {}
    if paths.training_precision is not None and isinstance(encoder, SiglipEncoder):
        vectors["training"] = _training_vectors(encoder, photos, paths)
    if paths.batch.precision != "fp32" or paths.batch.is_compiled:
        encoder = open_encoder(source, paths.batch)
    vectors["batch"] = block_vectors(SharedEncoder(encoder, paths.batch), decoder(golden))
    rows = np.setdiff1d(np.arange(len(photos)), bad_rows(served)).tolist()
    return {
        path: {row: float(1.0 - vectors[path][row] @ served[row]) for row in rows} for path in sorted(vectors)
    }


def _training_vectors(
    encoder: SiglipEncoder, photos: Sequence[ImageBytes], paths: ParityPaths
) -> Float32[ndarray, "n d"]:
    """Vectors as training computes them, without augmentation; `encoder` is in float32."""
    decoded = [
        decode_for_training(photo, encoder.image, paths.augment, scaled=paths.scaled_decoding)
        for photo in photos
    ]
    pixels = np.stack([to_pixels(photo, encoder.image) for photo in decoded])
    is_bf16 = paths.training_precision == "bf16"
    with torch.autocast(paths.batch.device, torch.bfloat16) if is_bf16 else contextlib.nullcontext():
        return encoder.embed_pixels(pixels, paths.batch.batch_size)


def golden_items(shards: Sequence[ShardRef], num_items: int) -> pa.Table:
    """At most `num_items` items of the shards as a block, the same ones for the same shards.

    They are spread evenly over a few shards. Items whose photo cannot be used are left out.
    """
    builder = BlockBuilder(block_bytes=1 << 40)
    numbers = _spread(len(shards), min(_SHARDS, num_items))
    for number in numbers:
        with contextlib.suppress(MissingError), open_shard(shards[number]) as opened:
            for sample_number in _spread(shards[number].num_items, num_items // len(numbers)):
                sample = opened.read(sample_number)
                if isinstance(sample, Item) and _can_be_decoded(sample):
                    coordinates = (0, sample_number, number, sample_number)
                    assert not list(builder.add(sample, shards[number], coordinates))
    return pa.concat_tables([SCHEMA.empty_table(), *builder.flush()])


def _can_be_decoded(item: Item) -> bool:
    try:
        decode_image(item.image)
    except UnreadableImage:
        return False
    return True


def _spread(length: int, num: int) -> list[int]:
    """At most `num` positions, evenly spread over a sequence of this length."""
    num = min(length, num)
    return [(2 * number + 1) * length // (2 * num) for number in range(num)]
