"""Keep the intact tars of a version that was published before: only the other ones are written again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ShardEntry, ShardSetManifest
from raysys.artifacts.directory import read_manifest
from raysys.columns import SHARD, SOURCE
from raysys.config.schema import SPLITS
from raysys.errors import DamagedData
from raysys.pack.paths import PackPaths
from raysys.pack.plan import PlannedShard
from raysys.pack.write import write_done_file
from raysys.shards.shard_set import ITEMS


def keep_intact_shards(shards: Sequence[PlannedShard], paths: PackPaths) -> None:
    """Mark the planned shards as written that lie undamaged in the folder of the version.

    A shard that lacks photos, because they changed while it was written, is not kept: it is tried again.
    """
    for split in SPLITS:
        planned = {shard.name: shard for shard in shards if shard.split == split}
        for entry, items in _intact_shards(paths.folder(split)):
            shard = planned.get(entry.name)
            if shard and shard.num_items == entry.num_items == items.num_rows:
                rows = items.append_column(SOURCE, pa.nulls(items.num_rows, pa.string()))
                write_done_file(rows, [None] * rows.num_rows, entry, paths.done(shard))


def _intact_shards(folder: str) -> Iterator[tuple[ShardEntry, pa.Table]]:
    """The undamaged tars of a version with the rows of their items; none if it has no sound manifest."""
    try:
        manifest = read_manifest(folder, ShardSetManifest)
    except DamagedData:
        return
    intact = artifacts.intact_files(folder, manifest) if manifest else set()
    if manifest is None or ITEMS not in intact:
        return
    entries = {entry.name: entry for entry in manifest.shards if entry.name in intact}
    with storage.open_input(storage.join(folder, ITEMS)) as stream:
        table = pq.ParquetFile(stream)
        for number in range(table.num_row_groups):  # one for each shard, then those of inherited items
            rows = table.read_row_group(number)
            if rows.num_rows and (name := rows.column(SHARD)[0].as_py()) in entries:
                yield entries[name], rows
