"""The actor that embeds a block of pixels and writes it as one Parquet file."""

from __future__ import annotations

import json
import pickle
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from raysys import storage
from raysys.artifacts import require_same_space
from raysys.artifacts.embedding_set import bad_rows, fault_of
from raysys.columns import (
    DETAIL,
    EMBEDDING,
    IMAGE_OFFSET,
    ITEM_ID,
    LEDGER_SCHEMA,
    PIXELS,
    REASON,
    SHARD,
    SPLIT,
    embedding_schema,
)
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
        block, refused = block.filter(has_photo), _ledger(block.filter(pc.invert(has_photo)))
        if len(block):
            name, vectors = _part_name(block), self._vectors(block)
            bad = bad_rows(vectors)
            if len(bad):
                refused += [
                    {**row, REASON: BAD_VECTOR, DETAIL: f"its vector {fault_of(vector)}"}
                    for row, vector in zip(_ledger(block.take(bad)), vectors[bad], strict=True)
                ]
                good = np.setdiff1d(np.arange(len(block)), bad)
                block, vectors = block.take(good), vectors[good]
            self._write(name, block, vectors)
        return len(block), refused

    def _vectors(self, block: pa.Table) -> np.ndarray:
        started = time.monotonic()
        vectors = block_vectors(self._encoder, block, self._batch_size)
        self._seconds += time.monotonic() - started
        return vectors

    def _write(self, name: str, block: pa.Table, vectors: np.ndarray) -> None:
        uri = storage.join(self._output_uri, name)
        if not len(block):
            storage.delete(uri)  # of an earlier attempt
            return
        with storage.writable_file(uri) as path:
            pq.write_table(_with_vectors(block, vectors), path)


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


def part_prefix(split: str, shard_uri: str) -> str:
    """How the names of all parts of a shard begin: `<split>-<shard name without .tar>-<hash of its folder>`.

    A ShardSet may refer to tars of one name in several folders.
    """
    folder, _, name = shard_uri.rpartition("/")
    return f"{split}-{name.removesuffix('.tar')}-{storage.sha256_of_bytes(folder.encode())[:8]}"


def _part_name(block: pa.Table) -> str:
    """`<split>-<shard>-<offset of the first photo>.parquet`."""
    first = block.slice(0, 1).select([SPLIT, SHARD, IMAGE_OFFSET]).to_pylist()[0]
    return f"{part_prefix(first[SPLIT], first[SHARD])}-{first[IMAGE_OFFSET]:012d}.parquet"


def _with_vectors(block: pa.Table, vectors: np.ndarray) -> pa.Table:
    schema = embedding_schema(vectors.shape[1])
    columns = {name: block.column(name) for name in schema.names}
    columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _ledger(block: pa.Table) -> list[dict[str, str]]:
    """The ledger rows of a block, with its own reasons and details."""
    rows = block.select([ITEM_ID, REASON, DETAIL, SHARD]).rename_columns(LEDGER_SCHEMA.names)
    return list(rows.to_pylist())
