"""Publishing: the ledger of refused rows, the table of items, and last the manifests.

Everything is written before the first manifest, one part and one shard at a time, and the counts are checked.
The last files are the manifests of the ShardSets: each replaces the published one at once. Then the files of
the replaced ShardSets are deleted.
"""

from __future__ import annotations

import collections
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, FileEntry, ShardEntry, ShardSetManifest
from raysys.columns import ATTRIBUTES, DETAIL, LEDGER_SCHEMA, REASON, SOURCE
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import DamagedData, InputError
from raysys.pack.catalog import Refusal
from raysys.pack.duplicates import Mask
from raysys.pack.parent import ParentItems, inherit
from raysys.pack.paths import PackPaths
from raysys.pack.photo_uris import UNREACHABLE
from raysys.pack.plan import INHERITED, NO_GROUP, PACKED, REFUSED, REPEATED_ID, Plan
from raysys.pack.write import ITEMS_SCHEMA, WrittenShard, read_written_shard
from raysys.shards.shard_set import ITEMS, LEDGER

_EXAMPLES = 3  # refused rows that an error message shows
_REPEATED = Refusal("repeated_id", "an earlier row has the same item id")


def attempt_ledger(home: str) -> str:
    """Where a pack below `home` that stops lists its refused rows; the next pack deletes it."""
    return storage.join(home, LEDGER)


@dataclass(frozen=True)
class Ledger:
    """The rows refused by the scan and by planning."""

    catalog: str
    scratch: str
    parts: list[str]
    part_rows: list[int]
    plan: Plan

    @property
    def attempt_uri(self) -> str:
        """The ledger of a pack that stops because of refused rows."""
        return attempt_ledger(self.scratch.rpartition("/")[0])

    def refusals(self, split: str | None = None) -> Iterator[pa.Table]:
        """The refused rows (of one split) in the order of the catalogue, one table per part."""
        start = 0
        for name, num_rows in zip(self.parts, self.part_rows, strict=True):
            status = self.plan.status[start : start + num_rows]
            is_refused = (status == REFUSED) | (status == REPEATED_ID)
            if split is not None:
                is_refused &= self.plan.split[start : start + num_rows] == SPLITS.index(split)
            start += num_rows
            if is_refused.any():
                yield self._read(name, status == REPEATED_ID, is_refused)

    def check(self, max_bad_fraction: float, late: Iterable[pa.Table] = ()) -> None:
        """Check the share of refused rows; `late` are rows refused while writing.

        Raises: DamagedData above `max_bad_fraction`.
        """
        late_tables = [*late]
        num_refused = self.plan.num_refused() + sum(table.num_rows for table in late_tables)
        num_rows = len(self.plan.status)
        if num_refused <= max_bad_fraction * num_rows:
            return
        counts, examples = self.write_attempt(late_tables)
        retry = "; a further run tries the unreachable ones again" if UNREACHABLE in counts else ""
        raise DamagedData(
            f"{self.catalog}: {num_refused} of {num_rows} rows cannot be used ({counts}; first {examples}; "
            f"ledger: {self.attempt_uri}{retry}); correct them, or raise pack.max_bad_fraction"
        )

    def require_training_items(self) -> None:
        """Raise InputError if no row can be used in the train split."""
        is_usable = self.plan.group != NO_GROUP
        if (self.plan.split[is_usable] == SPLITS.index("train")).any():
            return
        refused = ""
        if num_refused := self.plan.num_refused():
            counts, examples = self.write_attempt(())
            refused = f" ({num_refused} of {len(self.plan.status)} rows refused: {counts}; first {examples}; "
            refused += f"ledger: {self.attempt_uri})"
        raise InputError(
            f"{self.catalog}: no usable row is in the train split{refused}; "
            "check pack.split and the catalogue"
        )

    def write_attempt(self, late: Iterable[pa.Table]) -> tuple[str, str]:
        """Write the ledger of a pack that stops, beside the splits. Returns counts by reason and examples."""
        reasons: collections.Counter[str] = collections.Counter()
        examples: list[str] = []
        with parquet_writer(self.attempt_uri, LEDGER_SCHEMA) as ledger:
            for table in (*self.refusals(), *late):
                ledger.write_table(table.cast(LEDGER_SCHEMA))
                reasons.update(table.column(REASON).to_pylist())
                for row in table.slice(0, _EXAMPLES - len(examples)).to_pylist():
                    examples.append(f"{row[SOURCE]}: {row[DETAIL]}")
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return counts, "; ".join(examples)

    def _read(self, name: str, is_repeated: Mask, is_refused: Mask) -> pa.Table:
        with storage.open_input(storage.join(self.scratch, name)) as stream:
            table = pq.read_table(stream, columns=LEDGER_SCHEMA.names)
        for column, value in ((REASON, _REPEATED.reason), (DETAIL, _REPEATED.detail)):
            position = table.schema.get_field_index(column)
            filled = pa.compute.if_else(pa.array(is_repeated), value, table.column(column))
            table = table.set_column(position, column, filled)
        return table.filter(pa.array(is_refused)).cast(LEDGER_SCHEMA)


def publish(
    specs: Mapping[str, ArtifactSpec],
    plan: Plan,
    parent: ParentItems,
    ledger: Ledger,
    paths: PackPaths,
    section: PackConfig,
    seconds: float,
) -> dict[str, ShardSetManifest]:
    """Write the files beside the tars, check the counts, and publish all manifests.

    Raises: DamagedData if photos that changed while packing bring the refused rows above the limit.
    """
    late = (shard.refused.select(LEDGER_SCHEMA.names) for shard in _written_shards(plan, paths))
    ledger.check(section.max_bad_fraction, (table for table in late if table.num_rows))
    attribute_types = item_schema(ledger)
    manifests: dict[str, ShardSetManifest] = {
        split: _write_tables(specs[split], split, plan, parent, ledger, paths, attribute_types, seconds)
        for split in SPLITS
    }
    num_rows = sum(manifest.num_items + manifest.num_refused for manifest in manifests.values())
    assert num_rows == len(plan.status), "items and refused rows do not add up to the catalogue"
    return replace_published(specs, manifests, paths)


def replace_published(
    specs: Mapping[str, ArtifactSpec], manifests: Mapping[str, ShardSetManifest], paths: PackPaths
) -> dict[str, ShardSetManifest]:
    """Publish the version whose files are complete in place of the ShardSets that are published."""
    for split, manifest in manifests.items():
        artifacts.publish(paths.folder(split), manifest)
    storage.write_bytes(paths.complete, b"")
    published: dict[str, ShardSetManifest] = {
        split: artifacts.publish_version(specs[split].uri, paths.version, manifests[split])
        for split in SPLITS
    }
    for spec in specs.values():
        artifacts.delete_other_versions(spec.uri, spec.manifest)
    return published


def _written_shards(plan: Plan, paths: PackPaths, split: str | None = None) -> Iterator[WrittenShard]:
    for shard in plan.shards:
        if split in (None, shard.split):
            written = read_written_shard(shard, paths)
            assert written is not None, f"{shard.split}/{shard.name} was not written"
            yield written


def _write_tables(
    spec: ArtifactSpec,
    split: str,
    plan: Plan,
    parent: ParentItems,
    ledger: Ledger,
    paths: PackPaths,
    attribute_types: dict[str, str],
    seconds: float,
) -> ShardSetManifest:
    """Write ledger and items of a split. Returns the manifest, not yet published."""
    uri, inherited = paths.folder(split), inherit(parent, split, plan.is_live)
    shards: list[ShardEntry] = []
    reasons: collections.Counter[str] = collections.Counter()
    with (
        parquet_writer(storage.join(uri, LEDGER), LEDGER_SCHEMA) as refused,
        parquet_writer(storage.join(uri, ITEMS), ITEMS_SCHEMA) as items,
    ):
        for table in ledger.refusals(split):
            reasons.update(table.column(REASON).to_pylist())
            refused.write_table(table)
        for written in _written_shards(plan, paths, split):
            shards += [written.entry] if written.entry.num_items else []
            items.write_table(written.items.cast(ITEMS_SCHEMA))
            if written.refused.num_rows:
                reasons.update(written.refused.column(REASON).to_pylist())
                refused.write_table(written.refused.select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA))
        for table in inherited.live_items if inherited else ():
            items.write_table(table.select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA))
    storage.delete_drafts(uri)
    num_packed, num_live = sum(shard.num_items for shard in shards), inherited.num_live if inherited else 0
    assert num_live == int(((plan.status == INHERITED) & (plan.split == SPLITS.index(split))).sum())
    files = artifacts.describe_files(uri, only=[LEDGER, ITEMS])
    files |= {shard.name: FileEntry(bytes=shard.bytes, sha256=shard.sha256) for shard in shards}
    # Children refer to the tars by URI: two versions with equal files have different fingerprints.
    versioned = {storage.join(paths.version, name): entry for name, entry in files.items()}
    fields = artifacts.common_fields(spec, versioned, num_packed + num_live, seconds) | {"files": files}
    return ShardSetManifest(
        **fields,
        split=split,
        shards=shards,
        inherited=inherited.shards if inherited else [],
        item_schema=attribute_types,
        num_rows=num_packed + num_live + reasons.total(),
        num_refused=reasons.total(),
        refused_by_reason=dict(reasons),
        num_split_groups=plan.num_split_groups,
    )


@contextlib.contextmanager
def parquet_writer(uri: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    with (
        storage.writable_file(uri) as path,
        pq.ParquetWriter(path, schema, write_page_checksum=True) as writer,
    ):
        yield writer


def item_schema(ledger: Ledger) -> dict[str, str]:
    """Attribute -> type, over all rows that a shard holds."""
    type_names = {str: "text", bool: "boolean", int: "integer", float: "number"}
    schema: dict[str, str] = {}
    start = 0
    for name, num_rows in zip(ledger.parts, ledger.part_rows, strict=True):
        with storage.open_input(storage.join(ledger.scratch, name)) as stream:
            column = pq.read_table(stream, columns=[ATTRIBUTES]).column(ATTRIBUTES)
        is_item = pa.array(np.isin(ledger.plan.status[start : start + num_rows], (PACKED, INHERITED)))
        start += num_rows
        for text in column.filter(is_item).to_pylist():
            schema |= {
                key: type_names[type(value)] for key, value in json.loads(text).items() if value is not None
            }
    return dict(sorted(schema.items()))
