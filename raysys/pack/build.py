"""`pack_shard_sets`: builds one ShardSet per split from a catalogue: scan, plan, write.

Scan: the catalogue is read in parts, each independently; a part leaves its scanned rows in a scratch folder.
Plan: the scanned rows decide which row goes to which shard. Write: rows are grouped by shard, and each shard
becomes a tar. Existing files of the scratch folder are reused: a pack that was killed continues and gives the
same bytes as an uninterrupted one. Of the scanned rows, only unreachable photos are tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, ShardSetManifest
from raysys.columns import GROUP, ITEM_ID
from raysys.config.schema import SPLITS, FolderCatalog, PackConfig, TableCatalog
from raysys.pack import publish
from raysys.pack.catalog import Catalog, CatalogFile
from raysys.pack.executor import Executor
from raysys.pack.kept_shards import keep_intact_shards
from raysys.pack.parent import read_parent_items
from raysys.pack.paths import PackPaths, list_parts, scratch_folder
from raysys.pack.plan import NO_SHARD, Plan, make_plan, read_scanned_rows
from raysys.pack.scan import ROWS_PER_PART, Part, cut_parts, has_unreachable, scan
from raysys.pack.version_name import version_name
from raysys.pack.write import (
    KEY,
    PLANNED_SHARD,
    SCANNED_COLUMNS,
    WRITE_SCHEMA,
    read_written_shard,
    write_shards,
)
from raysys.shards.tar import key_of
from raysys.tracking import logs

ROWS_PER_READ = 131_072  # scanned rows in one read of the writing step: about 80 MB
_IS_MISSING = "is_missing"


def pack_shard_sets(
    catalog: Catalog, section: PackConfig, specs: Mapping[str, ArtifactSpec], executor: Executor
) -> dict[str, ShardSetManifest]:
    """Build the ShardSet of every split in `specs`.

    Raises: DamagedData above `pack.max_bad_fraction` and InputError for an empty train split, both before
    anything is published; Busy if another pack runs below the same root.
    """
    started = time.monotonic()
    home = specs["train"].uri.rpartition("/")[0]
    with scratch_folder(home, [specs[split].spec_hash for split in SPLITS]) as scratch:
        storage.delete(publish.attempt_ledger(home))
        parts = _scan(catalog, section, scratch, executor)
        parent = read_parent_items(section.parent)
        scanned = read_scanned_rows(scratch, parts)
        plan = make_plan(scanned, section, parent)
        part_rows = scanned.part_rows
        del scanned  # about 100 bytes per row
        assert len(plan.status) == catalog.num_rows, "the scan lost rows"
        ledger = publish.Ledger(catalog.section.path, scratch, parts, part_rows, plan)
        ledger.check(section.max_bad_fraction)
        ledger.require_training_items()
        version = version_name(plan, ledger.refusals(), specs["train"].inputs)
        paths = PackPaths({split: spec.uri for split, spec in specs.items()}, version, scratch)
        _begin(specs, plan, paths)
        _write(plan, parts, part_rows, paths, executor)
        seconds = time.monotonic() - started
        return publish.publish(specs, plan, parent, ledger, paths, section, seconds)


def _begin(specs: Mapping[str, ArtifactSpec], plan: Plan, paths: PackPaths) -> None:
    """Keep the published ShardSets, and what earlier runs wrote of this version; delete all else.

    An interrupted run wrote another version if photos that were unreachable then are reachable now.
    """
    version = paths.version.encode()
    if not storage.exists(paths.version_file) or storage.read_bytes(paths.version_file) != version:
        paths.delete_marks()
        keep_intact_shards(plan.shards, paths)
        storage.write_bytes(paths.version_file, version)
    for spec in specs.values():
        artifacts.delete_other_versions(spec.uri, spec.manifest, keep={paths.version})


def _scan(catalog: Catalog, section: PackConfig, scratch: str, executor: Executor) -> list[str]:
    """Scan the parts that are missing, and those with unreachable photos. Returns the names of all parts in
    the order of the catalogue."""
    existing = [name for name in list_parts(scratch) if not has_unreachable(storage.join(scratch, name))]
    done = {name.removesuffix(".parquet") for name in existing}
    reads = [
        partial(_read_parts, number, file, catalog.section, catalog.split_column, done, ROWS_PER_PART)
        for number, file in enumerate(catalog.files)
    ]
    with logs.progress("scan", catalog.num_rows) as advance:
        num_done = sum(_num_rows(storage.join(scratch, name)) for name in existing)
        advance(num_done)
        if num_done < catalog.num_rows:
            for num_rows in executor.scan(reads, partial(scan, section=section, folder=scratch)):
                advance(num_done := num_done + num_rows)
    return list_parts(scratch)


def _read_parts(
    file_number: int,
    file: CatalogFile,
    section: TableCatalog | FolderCatalog,
    split_column: str | None,
    done: set[str],
    rows_per_part: int,
) -> Iterator[Part]:
    return cut_parts(file_number, file.rows(section, split_column), done, rows_per_part)


def _write(plan: Plan, parts: list[str], part_rows: list[int], paths: PackPaths, executor: Executor) -> None:
    """Write the shards that are missing."""
    shards = plan.shards
    is_missing = [read_written_shard(shard, paths) is None for shard in shards]
    total = sum(shard.num_items for shard in shards)
    num_missing = sum(shard.num_items for shard, missing in zip(shards, is_missing, strict=True) if missing)
    with logs.progress("write", total) as advance:
        advance(num_done := total - num_missing)
        if num_missing:
            reads = _write_reads(plan, parts, part_rows, is_missing, paths)
            work = partial(write_shards, shards=shards, paths=paths)
            for num_rows in executor.write(reads, len(shards), work):
                advance(num_done := num_done + num_rows)
    assert num_done == total, f"{total - num_done} planned rows were not written"


def _write_reads(
    plan: Plan, parts: list[str], part_rows: list[int], is_missing: list[bool], paths: PackPaths
) -> list[Callable[[], pa.Table]]:
    """One read per run of parts. A file holds the plan of its rows; the read joins it to the scanned rows."""
    reads: list[Callable[[], pa.Table]] = []
    is_shard_missing = pa.array([*is_missing, False])  # the last one stands for NO_SHARD
    first = start = stop = 0
    for number, num_rows in enumerate(part_rows):
        stop += num_rows
        if stop - start < ROWS_PER_READ and number + 1 < len(parts):
            continue
        shard = plan.shard[start:stop]
        group = pa.array(plan.group[start:stop], mask=shard == NO_SHARD)
        is_row_missing = is_shard_missing.take(pa.array(shard % len(is_shard_missing)))
        table = pa.table(
            {
                PLANNED_SHARD: pa.array(shard),
                GROUP: plan.group_names.take(group),
                _IS_MISSING: is_row_missing,
            }
        )
        uri = paths.plan(len(reads))
        with storage.writable_file(uri) as path:
            pq.write_table(table, path)
        part_uris = [storage.join(paths.scratch, name) for name in parts[first : number + 1]]
        reads.append(partial(_read_planned, uri, part_uris))
        first, start = number + 1, stop
    return reads


def _read_planned(plan_uri: str, part_uris: list[str]) -> pa.Table:
    """The rows of the missing shards, with all columns of `WRITE_SCHEMA`."""
    planned = _read_table(plan_uri)
    rows = pa.concat_tables([_read_table(uri, SCANNED_COLUMNS) for uri in part_uris])
    for name in (PLANNED_SHARD, GROUP):
        rows = rows.append_column(name, planned.column(name))
    rows = rows.filter(planned.column(_IS_MISSING))
    keys = [key_of(item_id) for item_id in rows.column(ITEM_ID).to_pylist()]
    rows = rows.append_column(KEY, pa.array(keys, pa.string()))
    return rows.select(WRITE_SCHEMA.names).cast(WRITE_SCHEMA)


def _num_rows(uri: str) -> int:
    with storage.open_input(uri) as stream:
        return int(pq.read_metadata(stream).num_rows)


def _read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open_input(uri) as stream:
        return pq.read_table(stream, columns=columns)
