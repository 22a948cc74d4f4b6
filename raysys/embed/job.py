"""`raysys embed`: the catalogue through the image encoder, then through the fitted projection."""

from __future__ import annotations

import collections
import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from raysys import artifacts, observe, storage
from raysys.artifacts import EmbeddingSetManifest, EncoderBundleManifest, Target
from raysys.config.schema import EmbedConfig, StreamConfig
from raysys.embed.actor import EmbeddingActor
from raysys.embeddings import LEDGER, parts_of, read_embeddings, vectors_of
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.projection import Projection
from raysys.errors import DamagedData
from raysys.records import (
    DETAIL,
    EMBEDDING,
    ITEM_ID,
    LEDGER_SCHEMA,
    REASON,
    SOURCE,
    embedding_schema,
)
from raysys.stream.decode import EmbeddingDecoder
from raysys.stream.read import embedding_stream
from raysys.stream.shard import ShardRef


def embed(
    target: Target,
    encoder_uri: str,
    shards: list[ShardRef],
    image: ImagePreprocessing,
    section: EmbedConfig,
    stream: StreamConfig,
) -> EmbeddingSetManifest:
    """Make the EmbeddingSet of the shards; after a crash only shards without all their rows are done again.

    What cannot be embedded goes to the set's ledger.
    Raises: DamagedData if that is too much, or if not every item of the shards came out either way.
    """
    started = time.monotonic()
    encoder = artifacts.open_artifact(encoder_uri, EncoderBundleManifest)
    artifacts.begin(target)
    missing = _missing(target.uri, shards)
    total, done, refused = sum(shard.num_items for shard in missing), 0, []
    with observe.progress("embed", total) as advance:
        for row in _written(target.uri, encoder_uri, missing, image, section, stream):
            refused += json.loads(row["refused"])
            done += int(row["num_items"])
            advance(done + len(refused))
    if done + len(refused) != total:
        lost = total - done - len(refused)
        raise DamagedData(f"{target.uri}: {lost} of {total} items did not come out of the shards; run again")
    require_few_refused(refused, sum(shard.num_items for shard in shards), stream.max_bad_fraction)
    with storage.writable_file(storage.join(target.uri, LEDGER)) as path:
        pq.write_table(pa.Table.from_pylist(refused, schema=LEDGER_SCHEMA), path)
    return _publish(target, encoder, time.monotonic() - started, num_refused=len(refused))


def project(
    target: Target, source_uri: str, projection: Projection, space: EncoderBundleManifest
) -> EmbeddingSetManifest:
    """The EmbeddingSet of `source_uri` in the projected space, file by file."""
    started = time.monotonic()
    artifacts.begin(target)
    source = artifacts.open_artifact(source_uri, EmbeddingSetManifest)
    for name in parts_of(source):
        with storage.open_input(storage.join(source_uri, name)) as stream:
            table = pq.read_table(stream)
        vectors = projection.apply(vectors_of(table))
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns = {**{key: table.column(key) for key in table.schema.names}, EMBEDDING: column}
        with storage.writable_file(storage.join(target.uri, name)) as path:
            pq.write_table(pa.table(columns, schema=embedding_schema(vectors.shape[1])), path)
    return _publish(target, space, time.monotonic() - started, num_refused=source.num_refused)


def training_vectors(uri: str) -> np.ndarray:
    """The vectors of the training split, for fitting a projection."""
    return vectors_of(read_embeddings(uri, splits=("train",)))


def _written(
    uri: str,
    encoder_uri: str,
    shards: list[ShardRef],
    image: ImagePreprocessing,
    section: EmbedConfig,
    stream: StreamConfig,
) -> Any:
    if not shards:
        return iter(())
    device = "cuda" if section.use_gpu else "cpu"
    parts = embedding_stream(shards, EmbeddingDecoder(image), stream).map_batches(
        EmbeddingActor,
        fn_constructor_args=(encoder_uri, uri, device, section.precision, section.batch_size),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=section.actors),
        num_gpus=1 if section.use_gpu else None,
    )
    return parts.iter_rows()


def require_few_refused(refused: list[dict[str, str]], total: int, max_bad_fraction: float) -> None:
    """Raises: DamagedData that names the shard with the most, if they are too large a part of `total`."""
    if len(refused) > max_bad_fraction * total:
        shard, worst = collections.Counter(row[SOURCE] for row in refused).most_common(1)[0]
        first = refused[0]
        raise DamagedData(
            f"{shard}: {worst} of the {len(refused)} items (of {total}) that cannot be embedded "
            f"(first {first[ITEM_ID]}: {first[REASON]}: {first[DETAIL]}); see `raysys verify`, pack again, "
            "or raise stream.max_bad_fraction"
        )


def _missing(uri: str, shards: list[ShardRef]) -> list[ShardRef]:
    """The shards whose rows are not all written yet."""
    num_rows: dict[str, int] = {}
    for name in storage.list_files(uri):
        if name.endswith(".parquet") and name != LEDGER:
            stem = name.rsplit("-", 1)[0]
            with storage.open_input(storage.join(uri, name)) as stream:
                num_rows[stem] = num_rows.get(stem, 0) + pq.read_metadata(stream).num_rows
    return [shard for shard in shards if num_rows.get(_stem(shard), 0) != shard.num_items]


def _stem(shard: ShardRef) -> str:
    return f"{shard.split}-{shard.uri.rsplit('/', 1)[-1].removesuffix('.tar')}"


def _publish(
    target: Target, space: EncoderBundleManifest, seconds: float, *, num_refused: int
) -> EmbeddingSetManifest:
    files = artifacts.describe_files(target.uri)
    num_items = sum(_num_rows(storage.join(target.uri, name)) for name in files if name != LEDGER)
    manifest = EmbeddingSetManifest(
        **artifacts.common_fields(target, files, num_items, seconds),
        space_id=space.space_id,
        dimensions=space.dimensions,
        num_refused=num_refused,
    )
    return artifacts.publish(target.uri, manifest)


def _num_rows(uri: str) -> int:
    with storage.open_input(uri) as stream:
        return int(pq.read_metadata(stream).num_rows)
