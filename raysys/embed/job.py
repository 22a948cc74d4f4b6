"""`raysys embed`: the catalogue through the image encoder, then through the fitted projection."""

from __future__ import annotations

import collections
import json
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, EncoderBundleManifest
from raysys.artifacts.embedding_set import LEDGER
from raysys.columns import DETAIL, ITEM_ID, LEDGER_SCHEMA, REASON, SOURCE
from raysys.config.schema import EmbedConfig, StreamConfig
from raysys.embed.actor import EmbeddingActor
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.errors import DamagedData
from raysys.shards.reader import ShardRef
from raysys.stream.decode import EmbeddingDecoder
from raysys.stream.read import embedding_stream
from raysys.tracking import logs


def embed(
    spec: ArtifactSpec,
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
    artifacts.begin(spec)
    missing = _missing(spec.uri, shards)
    total, done, refused = sum(shard.num_items for shard in missing), 0, []
    with logs.progress("embed", total) as advance:
        for row in _written(spec.uri, encoder_uri, missing, image, section, stream):
            refused += json.loads(row["refused"])
            done += int(row["num_items"])
            advance(done + len(refused))
    if done + len(refused) != total:
        lost = total - done - len(refused)
        raise DamagedData(f"{spec.uri}: {lost} of {total} items did not come out of the shards; run again")
    require_few_refused(refused, sum(shard.num_items for shard in shards), stream.max_bad_fraction)
    with storage.writable_file(storage.join(spec.uri, LEDGER)) as path:
        pq.write_table(pa.Table.from_pylist(refused, schema=LEDGER_SCHEMA), path)
    return publish_embedding_set(spec, encoder, time.monotonic() - started, num_refused=len(refused))


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


def publish_embedding_set(
    spec: ArtifactSpec, space: EncoderBundleManifest, seconds: float, *, num_refused: int
) -> EmbeddingSetManifest:
    """Publish what was written to `spec.uri` as the EmbeddingSet of the space of bundle `space`."""
    files = artifacts.describe_files(spec.uri)
    num_items = sum(_num_rows(storage.join(spec.uri, name)) for name in files if name != LEDGER)
    manifest = EmbeddingSetManifest(
        **artifacts.common_fields(spec, files, num_items, seconds),
        space_id=space.space_id,
        dimensions=space.dimensions,
        num_refused=num_refused,
    )
    return artifacts.publish(spec.uri, manifest)


def _num_rows(uri: str) -> int:
    with storage.open_input(uri) as stream:
        return int(pq.read_metadata(stream).num_rows)
