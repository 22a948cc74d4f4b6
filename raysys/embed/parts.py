"""The files of an EmbeddingSet while it is made: its parts and its ledger, and publishing them.

A part has the items of one block of a shard. The encoder, the PCA and `raysys embed --vectors` write them.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, Parity, Throughput
from raysys.artifacts.embedding_set import LEDGER
from raysys.columns import (
    DETAIL,
    EMBEDDING,
    IMAGE_OFFSET,
    ITEM_ID,
    LEDGER_SCHEMA,
    REASON,
    SHARD,
    SOURCE,
    SPLIT,
    embedding_schema,
)
from raysys.embed.delta import Changes
from raysys.errors import DamagedData
from raysys.shards.reader import ShardRef

_NO_CHANGES = Changes()


class Space(Protocol):
    """An embedding space, for example that of an encoder."""

    @property
    def space_id(self) -> str:
        """Its id."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""
        ...


def part_prefix(split: str, shard_uri: str) -> str:
    """How the names of all parts of a shard begin: `<split>-<shard name without .tar>-<hash of its folder>`.

    A ShardSet may refer to tars of one name in several folders.
    """
    folder, _, name = shard_uri.rpartition("/")
    return f"{split}-{name.removesuffix('.tar')}-{storage.sha256_of_bytes(folder.encode())[:8]}"


def part_name(block: pa.Table) -> str:
    """The name of the part of a block: `<split>-<shard>-<offset of the first photo>.parquet`."""
    first = block.slice(0, 1).select([SPLIT, SHARD, IMAGE_OFFSET]).to_pylist()[0]
    return f"{part_prefix(first[SPLIT], first[SHARD])}-{first[IMAGE_OFFSET]:012d}.parquet"


def write_part(uri: str, block: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> None:
    """Write the items of a block with their vectors; without an item there is no file."""
    if not len(block):
        storage.delete(uri)  # of an earlier attempt
        return
    with storage.writable_file(uri) as path:
        pq.write_table(_with_vectors(block, vectors), path)


def ledger_rows(block: pa.Table, is_refused: pa.Array) -> list[dict[str, str]]:
    """The ledger rows of these items of a block, with its own reasons and details."""
    rows = block.select([ITEM_ID, REASON, DETAIL, SHARD]).rename_columns(LEDGER_SCHEMA.names)
    return list(rows.filter(is_refused).to_pylist())


def incomplete_shards(uri: str, shards: Sequence[ShardRef]) -> list[ShardRef]:
    """The shards for which not every row is written in the folder `uri` yet."""
    num_rows: collections.Counter[str] = collections.Counter()
    for name in storage.list_files(uri):
        if name.endswith(".parquet") and name != LEDGER:
            try:
                num_rows[name.rsplit("-", 1)[0]] += _num_rows(storage.join(uri, name))
            except (pa.ArrowInvalid, OSError):  # damaged since an earlier attempt wrote it
                storage.delete(storage.join(uri, name))
    return [shard for shard in shards if num_rows[part_prefix(shard.split, shard.uri)] != shard.num_items]


def require_few_refused(refused: list[dict[str, str]], total: int, max_bad_fraction: float) -> None:
    """Check that at most `max_bad_fraction` of all items were refused.

    Raises: DamagedData, which names the shard with the most refused items.
    """
    if len(refused) > max_bad_fraction * total:
        shard, num_of_shard = collections.Counter(row[SOURCE] for row in refused).most_common(1)[0]
        first = refused[0]
        raise DamagedData(
            f"{shard}: has {num_of_shard} of the {len(refused)} items (of {total}) that cannot be embedded "
            f"(first {first[ITEM_ID]}: {first[REASON]}: {first[DETAIL]}); run `raysys verify`, pack again, "
            "or raise stream.max_bad_fraction"
        )


def write_ledger(uri: str, refused: list[dict[str, str]]) -> None:
    """Write the ledger of an EmbeddingSet."""
    with storage.writable_file(storage.join(uri, LEDGER)) as path:
        pq.write_table(pa.Table.from_pylist(refused, schema=LEDGER_SCHEMA), path)


def publish_embedding_set(
    spec: ArtifactSpec,
    folder: str,
    space: Space,
    seconds: float,
    *,
    num_refused: int,
    changes: Changes = _NO_CHANGES,
    throughput: Throughput | None = None,
    parity: Parity | None = None,
) -> EmbeddingSetManifest:
    """Publish the parts in the folder below `spec.uri` as an EmbeddingSet of vectors of `space`.

    It takes the place of the one that is published, whose files are then deleted.
    Raises: DamagedData if no item is left.
    """
    uri = storage.join(spec.uri, folder)
    files = artifacts.describe_files(uri)
    num_items = sum(_num_rows(storage.join(uri, name)) for name in files if name != LEDGER)
    if not num_items:
        raise DamagedData(
            f"{spec.uri}: not published, because all {num_refused} items were refused (reasons in {LEDGER}); "
            "run `raysys verify`, and pack again"
        )
    manifest = EmbeddingSetManifest(
        **artifacts.common_fields(spec, files, num_items, seconds),
        space_id=space.space_id,
        dimensions=space.dimensions,
        num_refused=num_refused,
        num_carried_over=changes.num_carried_over,
        num_removed=changes.num_removed,
        throughput=throughput,
        parity=parity,
    )
    published = artifacts.publish_version(spec.uri, folder, manifest)
    artifacts.delete_other_versions(spec.uri, EmbeddingSetManifest)
    return published


def _num_rows(uri: str) -> int:
    with storage.open_input(uri) as stream:
        return int(pq.read_metadata(stream).num_rows)


def _with_vectors(block: pa.Table, vectors: np.ndarray) -> pa.Table:
    schema = embedding_schema(vectors.shape[1])
    columns = {name: block.column(name) for name in schema.names if name != EMBEDDING}
    columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
