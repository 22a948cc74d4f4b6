"""The items of an index as columns: one Arrow file per FAISS file, opened by memory map.

The file is not compressed: processes of a node that map it share its pages, and opening it copies nothing.
Row i belongs to row i of the FAISS file, but for `id_hash` and `id_row`: they hold the sorted hashes of the
item ids, and the row of each.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy import ndarray

from raysys import storage
from raysys.columns import (
    ATTRIBUTES,
    CONTENT_HASH,
    GROUP,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_ID,
    SHARD,
    TITLE,
)
from raysys.errors import MissingError
from raysys.index.attributes import attribute_columns
from raysys.types import Attributes

_ID_HASH, _ID_ROW = "id_hash", "id_row"


class IndexedItem(NamedTuple):
    """An item of the index; `attributes` has every attribute of the index, None where the item has none.

    `group` is equal for listings of the same thing, and "" for an item without copies.
    """

    item_id: str
    title: str
    attributes: Attributes
    group: str = ""


class PhotoPlace(NamedTuple):
    """Where the photo of an item is, and the hash of its photo and title; no bytes if it has no photo."""

    shard: str
    offset: int
    num_bytes: int
    content_hash: str


def no_photo(item_id: str) -> MissingError:
    """The error of an item that was put without a photo."""
    return MissingError(f"item '{item_id}' was put without a photo; put it again with one")


def items_file(number: int) -> str:
    """The name of the file with the items of a FAISS file of an IndexBundle."""
    return f"items-{number:05d}.arrow"


def item_columns(uri: str, embeddings: pa.Table) -> pa.Table:
    """The columns of the items of the EmbeddingSet at `uri`. Raises: as `attribute_columns`."""
    ids = embeddings.column(ITEM_ID)
    hashes = np.fromiter((_hash_of(item_id) for item_id in ids.to_pylist()), np.uint64, len(ids))
    order = np.argsort(hashes, kind="stable")
    names = (ITEM_ID, TITLE, GROUP, CONTENT_HASH)
    texts = {name: embeddings.column(name).cast(pa.large_string()) for name in names}
    columns = {
        **texts,
        ATTRIBUTES: attribute_columns(uri, ids, embeddings.column(ATTRIBUTES)),
        SHARD: embeddings.column(SHARD).dictionary_encode(),
        IMAGE_OFFSET: embeddings.column(IMAGE_OFFSET),
        IMAGE_BYTES: embeddings.column(IMAGE_BYTES),
        _ID_HASH: hashes[order],
        _ID_ROW: order.astype(np.int32),
    }
    return pa.table(columns).combine_chunks()


def write_items(uri: str, columns: pa.Table) -> None:
    """Write what `item_columns` returns as an Arrow IPC file."""
    with (
        storage.writable_file(uri) as path,
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, columns.schema) as writer,
    ):
        writer.write_table(columns)


class Items:
    """The items of one Arrow file, by row and by id, in memory that processes share.

    The file may be deleted afterwards, but not altered.
    """

    def __init__(self, path: Path) -> None:
        mapped = pa.memory_map(str(path)).read_buffer()
        # Reads a byte of every page: otherwise the first query that needs a page waits until it is mapped.
        np.frombuffer(mapped, np.uint8)[:: mmap.PAGESIZE].sum()
        batch = pa.ipc.open_file(mapped).get_batch(0)
        self._columns = {name: batch.column(name) for name in batch.schema.names}  # making one costs 1 us
        self._id_hashes: ndarray = self._columns[_ID_HASH].to_numpy()
        self._id_rows: ndarray = self._columns[_ID_ROW].to_numpy()
        struct = self._columns[ATTRIBUTES]
        self.attributes: dict[str, pa.Array] = {field.name: struct.field(field.name) for field in struct.type}
        """One column per attribute."""
        self._readers = {name: _reader(column) for name, column in self.attributes.items()}

    def __len__(self) -> int:
        return len(self._id_rows)

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None if the file has no such item."""
        hashed = np.uint64(_hash_of(item_id))
        place = int(np.searchsorted(self._id_hashes, hashed))
        while place < len(self) and self._id_hashes[place] == hashed:  # ids may share a hash
            row = int(self._id_rows[place])
            if self.item_id(row) == item_id:
                return row
            place += 1
        return None

    def item_id(self, row: int) -> str:
        """The id of the item of a row."""
        return str(self._value(ITEM_ID, row))

    def item(self, row: int) -> IndexedItem:
        """The item of a row. Arrow takes as long for ten rows together as for each of them alone."""
        attributes = {name: read(row) for name, read in self._readers.items()}
        return IndexedItem(self.item_id(row), self._value(TITLE, row), attributes, self._value(GROUP, row))

    def photo_place(self, row: int) -> PhotoPlace:
        """The place of a row's photo."""
        return PhotoPlace(
            *(self._value(name, row) for name in (SHARD, IMAGE_OFFSET, IMAGE_BYTES, CONTENT_HASH))
        )

    def _value(self, name: str, row: int) -> Any:
        return self._columns[name][row].as_py()


def _reader(column: pa.Array) -> Callable[[int], Any]:
    """Reads the value of a row. Arrow's own reading of a dictionary takes three times as long."""
    if not pa.types.is_dictionary(column.type):
        return lambda row: column[row].as_py()
    codes, texts = column.indices, column.dictionary
    return lambda row: None if (code := codes[row].as_py()) is None else texts[code].as_py()


def _hash_of(item_id: str) -> int:
    """64 bits that are equal in every process."""
    data = item_id.encode("utf-8", "surrogatepass")  # of an id that HTTP sent, too
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
