"""EmbeddingSets made by hand: items with given contents and vectors, in the layout of `raysys embed`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.columns import content_hash, embedding_schema


def publish_set(
    uri: str,
    files: Mapping[str, Sequence[tuple[str, bytes]]],
    vectors: np.ndarray,
    *,
    space_id: str = "s",
    precision: str = "fp32",
    title: str = "cup",
) -> EmbeddingSetManifest:
    """Publish a set whose files list the items as (id, photo); row i of `vectors` is that of the i-th item."""
    dimensions, first = vectors.shape[1], 0
    spec = ArtifactSpec(uri, EmbeddingSetManifest, {"precision": precision}, {})
    folder = artifacts.begin_version(spec)
    for name, items in files.items():
        rows = [
            {"item_id": item_id, "title": title, "attributes": "{}", "group": "", "split": "train", "shard": "old.tar",
             "image_offset": 0, "image_bytes": len(photo), "content_hash": content_hash(photo, title),
             "embedding": vector}
            for (item_id, photo), vector in zip(items, vectors[first:].tolist(), strict=False)
        ]  # fmt: skip
        first += len(items)
        with storage.writable_file(storage.join(uri, folder, name)) as path:
            pq.write_table(pa.Table.from_pylist(rows, schema=embedding_schema(dimensions)), path)
    described = artifacts.describe_files(storage.join(uri, folder))
    fields = artifacts.common_fields(spec, described, first, 0.0)
    manifest = EmbeddingSetManifest(**fields, space_id=space_id, dimensions=dimensions)
    return artifacts.publish_version(uri, folder, manifest)
