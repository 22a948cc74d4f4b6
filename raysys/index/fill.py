"""Train an index once and fill its FAISS files, each on its own with the columns of its items beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import faiss
import numpy as np
import pyarrow as pa
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import FileEntry
from raysys.artifacts.embedding_set import vectors_of
from raysys.columns import ATTRIBUTES, EMBEDDING, ITEM_ID
from raysys.index.attributes import AttributeKinds, attribute_kinds, require_one_kind
from raysys.index.device import CPU, Device, filled
from raysys.index.items import item_columns, items_file, write_items
from raysys.index.kinds import Recipe, trained_index
from raysys.index.shards import Shard, index_file, read_shard, write_shard
from raysys.index.source import IndexSource, blocks
from raysys.parallel import Parallel


def fill_shards(
    source: IndexSource,
    recipe: Recipe,
    sample: Float32[ndarray, "n d"],
    folder: str,
    parallel: Parallel,
    device: Device = CPU,
) -> dict[str, FileEntry]:
    """Write all files of an index to `folder`; one piece of work holds one FAISS file and its items.

    A CPU trains in this process; another device trains in a piece of work, as it fills.
    Raises: InputError for attributes that no column holds.
    """
    train = partial(_trained, recipe, sample[: recipe.num_training_vectors])
    # A task has one CPU, this process all of the machine's.
    [trained] = (map if device is CPU else parallel)(train, [device])
    ends = np.cumsum(source.shard_sizes).tolist()
    ranges = [*zip(range(len(ends)), [0, *ends], ends, strict=False)]
    files: dict[str, FileEntry] = {}
    kinds: AttributeKinds = {}
    for written, here in parallel(partial(_fill_shard, source, trained, folder, device), ranges):
        require_one_kind(source.uri, kinds, here)
        files, kinds = files | written, here | kinds
    return files


def open_one_by_one(
    folder: str,
    num_shards: int,
    settings: Mapping[str, int],
    max_exact_rows: int = 0,
    device: Device = CPU,
) -> Iterator[Shard]:
    """The FAISS files in `folder`, each with the rows after those of the file before."""
    first_row = 0
    for number in range(num_shards):
        with storage.readable_file(storage.join(folder, index_file(number))) as path:
            shard = Shard(read_shard(path), settings, first_row, max_exact_rows, device)
        first_row += len(shard)
        yield shard


def _trained(recipe: Recipe, sample: Float32[ndarray, "n d"], device: Device) -> ndarray:
    return np.asarray(faiss.serialize_index(trained_index(recipe, sample, device=device)))


def _fill_shard(
    source: IndexSource, trained: ndarray, folder: str, device: Device, rows: tuple[int, int, int]
) -> tuple[dict[str, FileEntry], AttributeKinds]:
    """Write the two files of a range of rows: its number, its first row, and the row after its last."""
    number, first_row, end_row = rows
    tables: list[pa.Table] = []

    def vectors() -> Iterator[Float32[ndarray, "n d"]]:
        for _, table in blocks(source.files, first_row, end_row):
            yield vectors_of(table)
            tables.append(table.drop_columns([EMBEDDING]))

    index = filled(faiss.deserialize_index(trained), vectors(), device)
    assert index.ntotal == end_row - first_row
    columns = item_columns(source.uri, pa.concat_tables(tables))
    write_items(storage.join(folder, items_file(number)), columns)
    with storage.writable_file(storage.join(folder, index_file(number))) as path:
        write_shard(index, path)
    names = [index_file(number), items_file(number)]
    kinds = attribute_kinds(columns.column(ITEM_ID), columns.column(ATTRIBUTES).combine_chunks())
    return artifacts.describe_files(folder, only=names), kinds
