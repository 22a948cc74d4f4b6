"""The changes of a log in a build: the last upsert of an item replaces it, and a delete removes it."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import EmbeddingSetManifest
from raysys.artifacts.embedding_set import vector_files
from raysys.artifacts.intact import read_table
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
from raysys.index.value_types import ValueType, type_of
from raysys.store.change_log import ChangeLog
from raysys.store.changes import LoggedChange, Upsert
from raysys.types import Attributes

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
    left_out: Mapping[str, LeftOut]
    """The values that these items lack now, by attribute."""


@dataclass
class LeftOut:
    """Values of an attribute that no column holds beside the others."""

    item_id: str
    """Of the first one."""
    count: int = 1


def write_changes(
    changes: ChangeSource, uri: str, embeddings: EmbeddingSetManifest, folder: str
) -> ChangedItems:
    """Write the items that exist after the changes to `FILE` in `folder`; memory holds only ids.

    Values whose type is not that of the attribute in the EmbeddingSet at `uri`, or in an earlier item, are
    left out: the log may have them, as the types of another catalogue, and a build must not fail for them.
    Raises: StoreFailed, DamagedData for a file of the EmbeddingSet.
    """
    log = ChangeLog(changes.url, changes.timeout_s)
    ids: list[pa.Array] = []
    num_deleted = num_without_vector = num_rows = 0
    schema = embedding_schema(embeddings.dimensions)
    types = _ColumnTypes(uri, embeddings)
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
                rows = [
                    _row(upsert, types.fitting(upsert.item_id, upsert.attributes), embeddings.space_id)
                    for upsert in found
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    finally:
        log.close()
    files = artifacts.describe_files(folder, only=[FILE])
    manifest = embeddings.model_copy(update={"files": files, "folder": "", "num_items": num_rows})
    all_ids = pa.chunked_array(ids, pa.string())
    return ChangedItems(all_ids, folder, manifest, num_deleted, num_without_vector, types.left_out)


class _ColumnTypes:
    """The types of each attribute in an EmbeddingSet, and in the items that follow.

    The set is read only as far as an attribute needs: to its first value, or to the end for one that the set
    lacks.
    """

    def __init__(self, uri: str, embeddings: EmbeddingSetManifest) -> None:
        self.left_out: dict[str, LeftOut] = {}
        self._rest = _attributes_of(uri, embeddings)
        self._types: defaultdict[str, list[ValueType]] = defaultdict(list)

    def fitting(self, item_id: str, attributes: Attributes) -> Attributes:
        """The attributes of the next item whose values fit."""
        return {
            name: value
            for name, value in attributes.items()
            if value is None or self._fits(item_id, name, type_of(value))
        }

    def _fits(self, item_id: str, name: str, new: ValueType | None) -> bool:
        known = self._types[name]
        while new is not None and not _is_decided(new, known):
            row = next(self._rest, None)
            if row is None:
                break
            for other, value in row.items():
                self._add(other, type_of(value))
        if new is not None and all(new.fits(other) for other in known):
            self._add(name, new)
            return True
        if name in self.left_out:
            self.left_out[name].count += 1
        else:
            self.left_out[name] = LeftOut(item_id)
        return False

    def _add(self, name: str, found: ValueType | None) -> None:
        if found is not None and found not in self._types[name]:
            self._types[name].append(found)


def _is_decided(new: ValueType, known: Sequence[ValueType]) -> bool:
    """Whether further values of a column cannot change if a value fits: a column may be of any numbers."""
    if new in known or any(not new.fits(other) for other in known):
        return True
    return bool(known) and new not in (ValueType.LARGE_INTEGER, ValueType.FRACTION)


def _attributes_of(uri: str, embeddings: EmbeddingSetManifest) -> Iterator[Attributes]:
    """The attributes of each item of an EmbeddingSet; none where the build will find them at fault."""
    for name in vector_files(embeddings):
        column = read_table(uri, name, embeddings, [ATTRIBUTES]).column(ATTRIBUTES)
        for text in itertools.chain.from_iterable(chunk.to_pylist() for chunk in column.chunks):
            try:
                attributes = json.loads(text)
            except ValueError:
                continue
            if isinstance(attributes, dict):
                yield attributes


def _pages(changes: Iterator[LoggedChange]) -> Iterator[Sequence[LoggedChange]]:
    page: list[LoggedChange] = []
    for logged in changes:
        page.append(logged)
        if len(page) == _ROWS:
            yield page
            page = []
    if page:
        yield page


def _row(upsert: Upsert, attributes: Attributes, space_id: str) -> dict[str, object]:
    return {
        ITEM_ID: upsert.item_id,
        TITLE: upsert.title,
        ATTRIBUTES: artifacts.canonical_json(attributes),
        GROUP: upsert.group,
        SPLIT: _SPLIT,
        SHARD: upsert.photo.uri if upsert.photo else "",
        IMAGE_OFFSET: 0,
        IMAGE_BYTES: upsert.photo.num_bytes if upsert.photo else 0,
        CONTENT_HASH: upsert.content_hash,
        EMBEDDING: upsert.vectors[space_id],
    }
