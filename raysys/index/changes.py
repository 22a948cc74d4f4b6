"""The changes of a log in a build: the last upsert of an item replaces it, and a delete removes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import EmbeddingSetManifest
from raysys.columns import (
    ATTRIBUTES,
    CONTENT_HASH,
    EMBEDDING,
    GROUP,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_ID,
    SHARD,
    SPLIT,
    TITLE,
    embedding_schema,
)
from raysys.store.change_log import ChangeLog
from raysys.store.changes import LoggedChange, Upsert

FILE = ".changes.parquet"  # hidden: it is no file of the bundle, and is deleted before that is published
_SPLIT = "changes"  # neither trained on nor judged
_ROWS = 1000


@dataclass(frozen=True)
class ChangeSource:
    """The changes that a build folds in: those of a database, up to a sequence."""

    url: str
    timeout_s: float
    up_to: int


@dataclass(frozen=True)
class ChangedItems:
    """The items that a log changes: `ids` of all of them, and a file in the format of an EmbeddingSet."""

    ids: pa.ChunkedArray
    uri: str
    manifest: EmbeddingSetManifest
    num_deleted: int
    num_without_vector: int
    """Items that were put without a vector of the space: the index has neither them nor what they replace."""


def write_changes(changes: ChangeSource, embeddings: EmbeddingSetManifest, folder: str) -> ChangedItems:
    """Write the items that exist after the changes to `FILE` in `folder`; memory holds only ids.

    Raises: StoreFailed.
    """
    log = ChangeLog(changes.url, changes.timeout_s)
    ids: list[pa.Array] = []
    num_deleted = num_without_vector = num_rows = 0
    schema = embedding_schema(embeddings.dimensions)
    try:
        with (
            storage.writable_file(storage.join(folder, FILE)) as path,
            pq.ParquetWriter(path, schema) as writer,
        ):
            for some in _pages(log.latest(embeddings.space_id, changes.up_to)):
                ids.append(pa.array([logged.change.item_id for logged in some], pa.string()))
                upserts = [logged.change for logged in some if isinstance(logged.change, Upsert)]
                found = [upsert for upsert in upserts if embeddings.space_id in upsert.vectors]
                num_deleted += len(some) - len(upserts)
                num_without_vector += len(upserts) - len(found)
                num_rows += len(found)
                rows = [_row(upsert, embeddings.space_id) for upsert in found]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    finally:
        log.close()
    files = artifacts.describe_files(folder, only=[FILE])
    manifest = embeddings.model_copy(update={"files": files, "folder": "", "num_items": num_rows})
    return ChangedItems(pa.chunked_array(ids, pa.string()), folder, manifest, num_deleted, num_without_vector)


def _pages(changes: Iterator[LoggedChange]) -> Iterator[Sequence[LoggedChange]]:
    page: list[LoggedChange] = []
    for logged in changes:
        page.append(logged)
        if len(page) == _ROWS:
            yield page
            page = []
    if page:
        yield page


def _row(upsert: Upsert, space_id: str) -> dict[str, object]:
    return {
        ITEM_ID: upsert.item_id,
        TITLE: upsert.title,
        ATTRIBUTES: artifacts.canonical_json(upsert.attributes),
        GROUP: upsert.group,
        SPLIT: _SPLIT,
        SHARD: upsert.photo.uri if upsert.photo else "",
        IMAGE_OFFSET: 0,
        IMAGE_BYTES: upsert.photo.num_bytes if upsert.photo else 0,
        CONTENT_HASH: upsert.content_hash,
        EMBEDDING: upsert.vectors[space_id],
    }
