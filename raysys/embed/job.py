"""Runs the image encoder over the shards with Ray Data and publishes the EmbeddingSet."""

from __future__ import annotations

import functools
import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import ray.data
import ray.data.exceptions

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, Parity, Throughput
from raysys.cluster import nodes as cluster_nodes
from raysys.cluster.capacity import Demand, Node
from raysys.cluster.datasource import open_rows
from raysys.columns import DETAIL, ITEM_ID, REASON
from raysys.config.schema import EmbedConfig, StreamConfig
from raysys.embed.actor import BAD_VECTOR, EmbeddingActor
from raysys.embed.delta import Changes, EarlierSet, count_changes, open_vectors
from raysys.embed.options import options_line, options_on
from raysys.embed.parts import (
    incomplete_shards,
    publish_embedding_set,
    require_few_refused,
    write_ledger,
)
from raysys.embed.unique import require_unique_vectors
from raysys.encoder.image_encoder import ImageEncoderInfo
from raysys.errors import DamagedData, known_cause
from raysys.shards.reader import ShardRef
from raysys.stream.concurrency import admit
from raysys.stream.decode import EmbeddingDecoder
from raysys.stream.read import embedding_stream
from raysys.tracking import logs
from raysys.tracking.logs import log

_ENOUGH_BAD_VECTORS = 1000  # to judge the encoder before the rest of a large catalogue is embedded


def embed(
    spec: ArtifactSpec,
    encoder: ImageEncoderInfo,
    shards: list[ShardRef],
    section: EmbedConfig,
    stream: StreamConfig,
    *,
    earlier: EarlierSet | None = None,
    check: Callable[[EmbeddingDecoder], Parity | None] | None = None,
    may_grow: bool = False,
) -> EmbeddingSetManifest:
    """Embed the shards and publish the EmbeddingSet; after a crash only incomplete shards are embedded again.

    Vectors of content that `earlier` has are carried over. `check` is the parity gate. Items that cannot be
    embedded go to the ledger of the set. With `may_grow`, waits for the nodes of an autoscaling cluster.
    Raises: InputError if encoders and stream do not fit the cluster together, ClusterError if no block is
    ready within `stream.first_batch_timeout_s`; DamagedData if two items have one id, if the share of
    refused items exceeds `stream.max_bad_fraction`, if no vector is usable, or if an item is missing from
    both the parts and the ledger.
    """
    started = time.monotonic()
    folder = artifacts.begin_version(spec)
    uri = storage.join(spec.uri, folder)
    vectors = open_vectors(earlier, uri) if earlier else None
    decoder = EmbeddingDecoder(encoder.image, vectors)
    parity = check(decoder) if check else None
    incomplete = incomplete_shards(uri, shards)
    total, num_embedded, refused, busy_seconds = sum(shard.num_items for shard in incomplete), 0, [], 0.0
    num_items = sum(shard.num_items for shard in shards)
    with logs.progress("embed", total) as advance:
        for row in embed_shards(uri, encoder, incomplete, decoder, section, stream, may_grow=may_grow):
            refused += json.loads(row["refused"])
            num_embedded += int(row["num_items"])
            busy_seconds += float(row["seconds"])
            advance(num_embedded + len(refused))
            if total == num_items and len(refused) >= _ENOUGH_BAD_VECTORS:
                require_usable_encoder(encoder.source, refused, num_embedded)
    throughput = _throughput(num_embedded, time.monotonic() - started, busy_seconds, section)
    require_unique_vectors(uri)
    if num_embedded + len(refused) != total:
        lost = total - num_embedded - len(refused)
        raise DamagedData(f"{spec.uri}: {lost} of {total} items were not read from the shards; run again")
    if total == num_items:
        require_usable_encoder(encoder.source, refused, num_embedded)
    require_few_refused(refused, num_items, stream.max_bad_fraction)
    write_ledger(uri, refused)
    manifest = publish_embedding_set(
        spec,
        folder,
        encoder,
        time.monotonic() - started,
        num_refused=len(refused),
        changes=count_changes(vectors, earlier, uri) if vectors and earlier else Changes(),
        throughput=throughput,
        parity=parity,
    )
    log.info("    embed  %s", summary_line(manifest))
    return manifest


def embed_shards(
    uri: str,
    encoder: ImageEncoderInfo,
    shards: list[ShardRef],
    decoder: EmbeddingDecoder,
    section: EmbedConfig,
    stream: StreamConfig,
    *,
    may_grow: bool,
) -> Iterator[dict[str, Any]]:
    """Write the parts of the shards below `uri`; yields the row that EmbeddingActor returns for each block.

    Raises: the error of raysys that an actor met; InputError or ClusterError as `embed`.
    """
    if not shards:
        return
    concurrency = admit("embed", stream, functools.partial(encoder_demand, section), may_grow=may_grow)
    nodes = cluster_nodes.alive_nodes()
    options = options_on(section, nodes, cluster_nodes.num_cores(nodes))
    log.info("%9s  %s", "embed", options_line(options))
    # Prepared photos of four bytes a value fill the memory like four times as many of one.
    block_megabytes = max(1, stream.block_megabytes // np.dtype(encoder.image.dtype).itemsize)
    stream = stream.model_copy(update={"block_megabytes": block_megabytes})
    # `map_batches` refuses whole blocks on a GPU. Here the encoder fills its batches from several of them.
    results = embedding_stream(shards, decoder, stream, concurrency).map_batches_internal(
        EmbeddingActor,
        fn_constructor_args=(encoder, uri, options),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=section.actors,
            max_concurrent_calls_per_actor=options.blocks_at_a_time,
            max_tasks_in_flight_per_actor=options.blocks_at_a_time + 1,
            enable_true_multi_threading=True,
        ),
        num_gpus=1 if section.use_gpu else None,
    )
    try:
        with open_rows(results) as rows:
            for row in rows:
                if row["error"]:
                    raise pickle.loads(row["error"])
                yield row
    except ray.data.exceptions.ExecutionTimeoutError as error:  # of the watch over the stream
        raise known_cause(error) or error from error


def encoder_demand(section: EmbedConfig, _: Sequence[Node]) -> Demand:
    """The actors that run the encoder; Ray Data reserves a CPU for each, also for those with a GPU."""
    each = {"CPU": 1.0, "GPU": 1.0} if section.use_gpu else {"CPU": 1.0}
    alternatives = ("set embed.use_gpu=false",) if section.use_gpu else ()
    return Demand(section.actors, "encoder", "embed.actors", each, alternatives)


def require_usable_encoder(encoder_uri: str, refused: list[dict[str, str]], num_embedded: int) -> None:
    """Check that the encoder computed a unit vector for one photo at least, if it got any.

    Raises: DamagedData whatever `stream.max_bad_fraction` is: nothing else would be embedded either.
    """
    bad = [row for row in refused if row[REASON] == BAD_VECTOR]
    if bad and not num_embedded:
        raise DamagedData(
            f"{encoder_uri}: none of its {len(bad)} vectors is usable (first: item '{bad[0][ITEM_ID]}': "
            f"{bad[0][DETAIL]}); its weights are the likely cause: "
            "delete it, then run `raysys train` again, or start from another checkpoint"
        )


def summary_line(manifest: EmbeddingSetManifest) -> str:
    """What was embedded, carried over and removed, how fast, and at which cost."""
    num_embedded = manifest.num_items - manifest.num_carried_over
    line = f"{num_embedded:,} embedded, {manifest.num_carried_over:,} carried over, "
    line += f"{manifest.num_removed:,} removed"
    if (speed := manifest.throughput) is not None:
        line += f"; {speed.photos_per_s:,.0f} photos/s, {speed.device_seconds:,.0f} device seconds"
        line += f" ({speed.busy_fraction:.0%} busy)"
        if speed.cost_per_million is not None:
            line += f"; {speed.cost_per_million:,.2f} per million photos"
    if (parity := manifest.parity) is not None:
        largest = ", ".join(f"{path} {distance:.1e}" for path, distance in parity.largest.items())
        line += f"; parity of {parity.num_items} items: {largest}"
    return line


def _throughput(
    num_photos: int, seconds: float, busy_seconds: float, section: EmbedConfig
) -> Throughput | None:
    """The figures of a run of this length; None without photos."""
    if not num_photos:
        return None
    device_seconds, price = section.actors * seconds, section.price_per_device_hour
    return Throughput(
        num_photos=num_photos,
        photos_per_s=round(num_photos / seconds, 3),
        device_seconds=round(device_seconds, 3),
        busy_fraction=round(busy_seconds / device_seconds, 4),
        cost_per_million=None if price is None else price * device_seconds / 3600 / num_photos * 1e6,
    )
