"""The actor that embeds a block of pixels and writes it as one Parquet file."""

from __future__ import annotations

import json
import pickle
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32

from raysys import storage
from raysys.artifacts import require_same_space
from raysys.artifacts.embedding_set import bad_rows, fault_of
from raysys.columns import (
    DETAIL,
    EMBEDDING,
    PIXELS,
    REASON,
)
from raysys.embed.parts import ledger_rows, part_name, write_part
from raysys.encoder.image_encoder import ImageEncoderInfo, open_image_encoder
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.vision import VisionEncoder
from raysys.errors import RaysysError

BAD_VECTOR = "bad_vector"  # the encoder computes no unit vector for this photo


class EmbeddingActor:
    """Holds an encoder; each call embeds a block and writes its part of the EmbeddingSet.

    A part's name depends only on its shard and first row, so a repeated attempt overwrites its own output.
    An error of raysys is a result: if it were raised, Ray would log pages and pass on its text only.
    """

    def __init__(
        self, encoder: ImageEncoderInfo, output_uri: str, device: str, precision: str, batch_size: int
    ) -> None:
        self._error: RaysysError | None = None
        try:
            self._encoder = open_image_encoder(encoder.source, device=device, precision=precision)
            # A node may have another revision of a hub model than the driver.
            require_same_space(encoder.source, encoder.space_id, "its copy here", self._encoder.space_id)
        except RaysysError as error:
            self._error = error
        self._output_uri = output_uri
        self._batch_size = batch_size

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row: `num_items` written, `refused`, the ledger rows of the other items as JSON, `seconds` that
        the encoder computed, and `error`, a pickled error instead of these; empty without one."""
        num_items, refused, error = 0, list[dict[str, str]](), self._error
        self._seconds = 0.0
        if error is None:
            try:
                num_items, refused = self._embed(block)
            except RaysysError as failure:
                error = failure
        pickled = pickle.dumps(error) if error else b""
        return pa.table(
            {
                "num_items": [num_items],
                "refused": [json.dumps(refused)],
                "seconds": [self._seconds],
                "error": [pickled],
            }
        )

    def _embed(self, block: pa.Table) -> tuple[int, list[dict[str, str]]]:
        """The number of items written, and the ledger rows of the others."""
        has_photo = pc.equal(block.column(REASON), "")
        block, refused = block.filter(has_photo), ledger_rows(block.filter(pc.invert(has_photo)))
        if len(block):
            name, vectors = part_name(block), self._vectors(block)
            bad = bad_rows(vectors)
            if len(bad):
                refused += [
                    {**row, REASON: BAD_VECTOR, DETAIL: f"its vector {fault_of(vector)}"}
                    for row, vector in zip(ledger_rows(block.take(bad)), vectors[bad], strict=True)
                ]
                good = np.setdiff1d(np.arange(len(block)), bad)
                block, vectors = block.take(good), vectors[good]
            write_part(storage.join(self._output_uri, name), block, vectors)
        return len(block), refused

    def _vectors(self, block: pa.Table) -> np.ndarray:
        started = time.monotonic()
        vectors = block_vectors(self._encoder, block, self._batch_size)
        self._seconds += time.monotonic() - started
        return vectors


def block_vectors(
    encoder: SiglipEncoder | VisionEncoder, block: pa.Table, batch_size: int
) -> Float32[np.ndarray, "n d"]:
    """The vectors of a decoded block: those of an earlier set as they are, the others computed."""
    earlier = block.column(EMBEDDING)
    is_new = np.asarray(earlier.is_null())
    vectors = np.empty((len(block), encoder.dimensions), np.float32)
    if not is_new.all():
        vectors[~is_new] = np.stack(earlier.drop_null().to_numpy())
    if is_new.any():
        image, column = encoder.image, block.column(PIXELS).filter(pa.array(is_new))
        pixels = np.stack([np.frombuffer(row.as_buffer(), image.dtype) for row in column])
        vectors[is_new] = encoder.embed_pixels(pixels.reshape(-1, *image.shape), batch_size)
    return vectors
