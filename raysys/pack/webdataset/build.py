"""`index_shard_sets`: builds one ShardSet per split from the tars of another tool: index, plan, publish.

The ShardSets have no tars of their own. Their tables of items list the title, the attributes and the place
of each photo. A tar may have items of every split. A killed pack continues with the tars that are missing.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, InheritedShard, ShardSetManifest
from raysys.columns import (
    ATTRIBUTES,
    DETAIL,
    GROUP,
    HEADER_HASH,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_HASH,
    ITEM_ID,
    LEDGER_SCHEMA,
    PHOTO_HASH,
    REASON,
    SHARD,
    SOURCE,
    TITLE,
)
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import DamagedData
from raysys.pack import publish
from raysys.pack.executor import Executor
from raysys.pack.parent import read_parent_items
from raysys.pack.paths import PackPaths, list_parts, scratch_folder
from raysys.pack.plan import PACKED, Plan, make_plan, read_scanned_rows
from raysys.pack.scan import PHOTO_BYTES, PHOTO_OFFSET, PHOTO_URI, has_unreachable
from raysys.pack.version_name import version_name
from raysys.pack.webdataset.index import LOST_TAR, index_tars
from raysys.pack.webdataset.listing import SourceTar, WebDataset
from raysys.pack.write import ITEMS_SCHEMA
from raysys.shards.shard_set import ITEMS, LEDGER
from raysys.tracking import logs

_TARS_PER_TASK = 16
INDEXED_SCHEMA = pa.schema(
    [
        *ITEMS_SCHEMA,
        (TITLE, pa.string()),
        (ATTRIBUTES, pa.string()),
        (IMAGE_OFFSET, pa.int64()),
        (IMAGE_BYTES, pa.int64()),
        (HEADER_HASH, pa.binary(16)),
    ]
)


def index_shard_sets(
    catalog: WebDataset, section: PackConfig, specs: Mapping[str, ArtifactSpec], executor: Executor
) -> dict[str, ShardSetManifest]:
    """Build the ShardSet of every split in `specs`.

    Raises: DamagedData above `pack.max_bad_fraction` of the samples or of the tars, and InputError for an
    empty train split, both before anything is published; Busy if another pack runs below the same root.
    """
    started = time.monotonic()
    home = specs["train"].uri.rpartition("/")[0]
    with scratch_folder(home, [specs[split].spec_hash for split in SPLITS]) as scratch:
        storage.delete(publish.attempt_ledger(home))
        _log_limits(catalog)
        parts = _index(catalog, section, scratch, executor)
        scanned = read_scanned_rows(scratch, parts)
        plan = make_plan(scanned, section, read_parent_items(None))
        ledger = publish.Ledger(catalog.section.path, scratch, parts, scanned.part_rows, plan)
        ledger.check(section.max_bad_fraction)
        _check_tars(catalog, ledger, section.max_bad_fraction)
        ledger.require_training_items()
        attribute_types = publish.item_schema(ledger)
        seconds = time.monotonic() - started
        version = version_name(plan, ledger.refusals(), specs["train"].inputs)
        paths = PackPaths({split: spec.uri for split, spec in specs.items()}, version, scratch)
        manifests = {
            split: _write(spec, split, paths.folder(split), catalog, ledger, attribute_types, seconds)
            for split, spec in specs.items()
        }
        return publish.replace_published(specs, manifests, paths)


def _log_limits(catalog: WebDataset) -> None:
    hint = "" if catalog.section.columns.group else " (catalog.columns.group can name a field for that)"
    logs.log.info(
        "     pack  %s: %d tars stay where they are; photos are not read, so neither checked nor compared%s",
        catalog.section.path,
        len(catalog.tars),
        hint,
    )


def _index(catalog: WebDataset, section: PackConfig, scratch: str, executor: Executor) -> list[str]:
    """Index the tars that are not indexed yet. Returns the names of all parts, one for each tar."""
    existing = [name for name in list_parts(scratch) if not has_unreachable(storage.join(scratch, name))]
    done = {name.removesuffix(".parquet") for name in existing}
    missing = [tar for tar in catalog.tars if tar.stem not in done]
    with logs.progress("index", len(catalog.tars)) as advance:
        advance(num_done := len(done))
        if missing:
            work = partial(index_tars, catalog=catalog, section=section, folder=scratch)
            for num_tars in executor.scan([partial(_batches, missing)], work):
                advance(num_done := num_done + num_tars)
    parts = list_parts(scratch)
    assert parts == [f"{tar.stem}.parquet" for tar in catalog.tars], "tars without an index"
    return parts


def _batches(tars: Sequence[SourceTar]) -> Iterator[tuple[SourceTar, ...]]:
    for start in range(0, len(tars), _TARS_PER_TASK):
        yield tuple(tars[start : start + _TARS_PER_TASK])


def _check_tars(catalog: WebDataset, ledger: publish.Ledger, max_bad_fraction: float) -> None:
    """A tar that cannot be read is one row of the ledger, and loses an unknown number of samples.

    Raises: DamagedData if the share of such tars exceeds `max_bad_fraction`.
    """
    lost: collections.Counter[str] = collections.Counter()
    first = ""
    for table in ledger.refusals():
        rows = table.filter(pc.is_in(table.column(REASON), value_set=pa.array(LOST_TAR))).to_pylist()
        lost.update(row[REASON] for row in rows)
        first = first or next((f"{row[SOURCE]}: {row[DETAIL]}" for row in rows), "")
    if lost.total() > max_bad_fraction * len(catalog.tars):
        ledger.write_attempt(())
        counts = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
        raise DamagedData(
            f"{ledger.catalog}: {lost.total()} of {len(catalog.tars)} tars cannot be used ({counts}; first "
            f"{first}; ledger: {ledger.attempt_uri}); correct them, or raise pack.max_bad_fraction"
        )


def _write(
    spec: ArtifactSpec,
    split: str,
    folder: str,
    catalog: WebDataset,
    ledger: publish.Ledger,
    attribute_types: dict[str, str],
    seconds: float,
) -> ShardSetManifest:
    """Write ledger and items of a split, one tar at a time. Returns the manifest, not yet published."""
    reasons: collections.Counter[str] = collections.Counter()
    shards: list[InheritedShard] = []
    with publish.parquet_writer(storage.join(folder, LEDGER), LEDGER_SCHEMA) as refused:
        for table in ledger.refusals(split):
            reasons.update(table.column(REASON).to_pylist())
            refused.write_table(table)
    with publish.parquet_writer(storage.join(folder, ITEMS), INDEXED_SCHEMA) as items:
        for tar, (num_items, table) in zip(catalog.tars, _items(ledger, split), strict=True):
            if table.num_rows:
                items.write_table(table)  # one row group: a reader of this tar needs no other
                shards.append(
                    InheritedShard(
                        uri=tar.uri,
                        num_items=num_items,
                        num_live=table.num_rows,
                        bytes=tar.num_bytes,
                        sha256=None,
                    )
                )
    num_items = sum(shard.num_live for shard in shards)
    files = artifacts.describe_files(folder, only=[LEDGER, ITEMS])
    return ShardSetManifest(
        **artifacts.common_fields(spec, files, num_items, seconds),
        split=split,
        shards=[],
        inherited=shards,
        item_schema=attribute_types,
        num_rows=num_items + reasons.total(),
        num_refused=reasons.total(),
        refused_by_reason=dict(reasons),
        num_split_groups=ledger.plan.num_split_groups,
    )


def _items(ledger: publish.Ledger, split: str) -> Iterator[tuple[int, pa.Table]]:
    """For each tar the number of its items in all splits, and those of one split as `INDEXED_SCHEMA`."""
    plan: Plan = ledger.plan
    start = 0
    for name, num_rows in zip(ledger.parts, ledger.part_rows, strict=True):
        rows = slice(start, start + num_rows)
        start += num_rows
        is_item = plan.status[rows] == PACKED
        is_ours = is_item & (plan.split[rows] == SPLITS.index(split))
        with storage.open_input(storage.join(ledger.scratch, name)) as stream:
            table = pq.read_table(stream).filter(pa.array(is_ours))
        groups = plan.group_names.take(pa.array(plan.group[rows][is_ours]))
        columns = {
            **{field: table.column(field) for field in (ITEM_ID, TITLE, ATTRIBUTES, ITEM_HASH, HEADER_HASH)},
            SHARD: table.column(PHOTO_URI),
            PHOTO_HASH: table.column(PHOTO_HASH),
            GROUP: groups.cast(pa.string()),
            IMAGE_OFFSET: table.column(PHOTO_OFFSET),
            IMAGE_BYTES: table.column(PHOTO_BYTES),
        }
        listed = pa.table({field: columns[field] for field in INDEXED_SCHEMA.names}, schema=INDEXED_SCHEMA)
        yield int(np.count_nonzero(is_item)), listed
