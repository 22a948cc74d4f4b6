"""The actor that embeds blocks of pixels and writes each as one Parquet file.

It gets several blocks at a time, each in a thread of its own: while the encoder computes one, another is
written, and the next is already there. The row of a block is returned after its file was written.
"""

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
from raysys.embed.options import EncoderOptions
from raysys.embed.parts import ledger_rows, part_name, write_part
from raysys.embed.shared_encoder import SharedEncoder, open_encoder
from raysys.encoder.image_encoder import ImageEncoderInfo
from raysys.errors import RaysysError

BAD_VECTOR = "bad_vector"  # the encoder computes no unit vector for this photo


class EmbeddingActor:
    """Holds an encoder; each call, in any thread, embeds a block and writes its part of the EmbeddingSet.

    A part's name depends only on its shard and first row, so a repeated attempt overwrites its own output.
    An error of raysys is a result: if it were raised, Ray would log pages and pass on its text only.
    """

    def __init__(self, encoder: ImageEncoderInfo, output_uri: str, options: EncoderOptions) -> None:
        self._error: RaysysError | None = None
        try:
            self._encoder = SharedEncoder(open_encoder(encoder.source, options), options)
            # A node may have another revision of a hub model than the driver.
            require_same_space(encoder.source, encoder.space_id, "its copy here", self._encoder.space_id)
        except RaysysError as error:
            self._error = error
        self._output_uri = output_uri

    def __call__(self, block: pa.Table) -> pa.Table:
        """One row: `num_items` written, `refused`, the ledger rows of the other items as JSON, `seconds` that
        the encoder computed since another block was finished, `write_seconds`, and `error`, a pickled error
        instead of these; empty without one."""
        num_items, refused, write_s, error = 0, list[dict[str, str]](), 0.0, self._error
        if error is None:
            try:
                num_items, refused, write_s = self._embed(block)
            except RaysysError as failure:
                error = failure
        return pa.table(
            {
                "num_items": [num_items],
                "refused": [json.dumps(refused)],
                "seconds": [0.0 if self._error else self._encoder.take_busy_s()],
                "write_seconds": [write_s],
                "error": [pickle.dumps(error) if error else b""],
            }
        )

    def _embed(self, block: pa.Table) -> tuple[int, list[dict[str, str]], float]:
        """The number of items written, the ledger rows of the others, and the seconds of writing."""
        write_s = 0.0
        has_photo = pc.equal(block.column(REASON), "")
        refused = ledger_rows(block, pc.invert(has_photo))
        if refused:  # a selection copies all pixels
            block = block.filter(has_photo)
        if len(block):
            name, vectors = part_name(block), block_vectors(self._encoder, block)
            bad = bad_rows(vectors)
            if len(bad):
                is_bad = np.isin(np.arange(len(block)), bad)
                refused += [
                    {**row, REASON: BAD_VECTOR, DETAIL: f"its vector {fault_of(vector)}"}
                    for row, vector in zip(ledger_rows(block, pa.array(is_bad)), vectors[is_bad], strict=True)
                ]
                block, vectors = block.filter(pa.array(~is_bad)), vectors[~is_bad]
            started = time.monotonic()
            write_part(storage.join(self._output_uri, name), block, vectors)
            write_s = time.monotonic() - started
        return len(block), refused, write_s


def block_vectors(encoder: SharedEncoder, block: pa.Table) -> Float32[np.ndarray, "n d"]:
    """The vectors of a decoded block: those of an earlier set as they are, the others computed."""
    earlier = block.column(EMBEDDING)
    is_new = np.asarray(earlier.is_null())
    vectors = np.empty((len(block), encoder.dimensions), np.float32)
    if not is_new.all():
        vectors[~is_new] = np.stack(earlier.drop_null().to_numpy())
    if is_new.any():
        image, pixels = encoder.image, block.column(PIXELS)
        buffers = (pixels[row].as_buffer() for row in np.flatnonzero(is_new).tolist())
        photos = [np.frombuffer(buffer, image.dtype).reshape(image.shape) for buffer in buffers]
        vectors[is_new] = encoder.submit(photos).result()
    return vectors
