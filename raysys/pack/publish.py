"""A pack's result: the ledger of refused rows, the list of items, and the manifests; counts that add up.

Everything is written before the first manifest is, part by part and shard by shard.
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
from raysys.errors import DamagedData
from raysys.pack.parent import Inheritance, Known, inherit
from raysys.pack.plan import INHERITED, PACKED, REFUSED, REPEATED, Plan
from raysys.pack.write import ITEMS_SCHEMA, Done, Places, read_done
from raysys.shards.shard_set import ITEMS, LEDGER, TOMBSTONES

_NAMED = 3  # first refused rows that an error names


@dataclass(frozen=True)
class Ledger:
    """The rows that planning refused."""

    catalog: str
    scratch: str
    parts: list[str]
    part_rows: list[int]
    plan: Plan

    def refusals(self, split: str | None = None) -> Iterator[pa.Table]:
        """Those of a split, in the order of the catalogue, a part at a time."""
        start = 0
        for name, num_rows in zip(self.parts, self.part_rows, strict=True):
            status = self.plan.status[start : start + num_rows]
            is_refused = (status == REFUSED) | (status == REPEATED)
            if split is not None:
                is_refused &= self.plan.split[start : start + num_rows] == SPLITS.index(split)
            start += num_rows
            if is_refused.any():
                yield self._read(name, status, is_refused)

    def check(self, max_bad_fraction: float, late: Iterable[pa.Table] = ()) -> None:
        """Raises: DamagedData if more than this share of the rows is refused, `late` ones included."""
        tables = [*late]
        num_bad = self.plan.num_refused() + sum(table.num_rows for table in tables)
        num_rows = len(self.plan.status)
        if num_bad <= max_bad_fraction * num_rows:
            return
        reasons: collections.Counter[str] = collections.Counter()
        first: list[str] = []
        for table in (*self.refusals(), *tables):
            reasons.update(table.column(REASON).to_pylist())
            for row in table.slice(0, _NAMED - len(first)).to_pylist():
                first.append(f"{row[SOURCE]}: {row[DETAIL]}")
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise DamagedData(
            f"{self.catalog}: {num_bad} of {num_rows} rows cannot be used ({counts}; "
            f"first {'; '.join(first)}); mend them, or raise pack.max_bad_fraction"
        )

    def _read(self, name: str, status: np.ndarray, is_refused: np.ndarray) -> pa.Table:
        with storage.open_input(storage.join(self.scratch, name)) as stream:
            table = pq.read_table(stream, columns=LEDGER_SCHEMA.names)
        for column, said in ((REASON, "repeated_id"), (DETAIL, "an earlier row has the same item id")):
            position = table.schema.get_field_index(column)
            is_repeated = pa.array(status == REPEATED)
            filled = pa.compute.if_else(is_repeated, said, table.column(column))
            table = table.set_column(position, column, filled)
        return table.filter(pa.array(is_refused)).cast(LEDGER_SCHEMA)


def publish(
    specs: Mapping[str, ArtifactSpec],
    plan: Plan,
    known: Known,
    ledger: Ledger,
    places: Places,
    section: PackConfig,
    seconds: float,
) -> dict[str, ShardSetManifest]:
    """Write what stands beside the tars, check the counts, and then all manifests.

    Raises: DamagedData if so many photos changed while packing that too many rows are refused.
    """
    late = (done.refused.select(LEDGER_SCHEMA.names) for _, done in _written(plan, places))
    ledger.check(section.max_bad_fraction, (table for table in late if table.num_rows))
    schema = _item_schema(ledger)
    made = {
        split: _describe(specs[split], split, plan, known, ledger, places, schema, seconds)
        for split in SPLITS
    }
    assert sum(one.num_items + one.num_refused for one in made.values()) == len(plan.status), "counts differ"
    return {split: artifacts.publish(specs[split].uri, made[split]) for split in SPLITS}


def _written(plan: Plan, places: Places, split: str | None = None) -> Iterator[tuple[ShardEntry, Done]]:
    for shard in plan.shards:
        if split in (None, shard.split):
            done = read_done(shard, places)
            assert done is not None, f"{shard.split}/{shard.name} was not written"
            yield done.entry, done


def _describe(
    spec: ArtifactSpec,
    split: str,
    plan: Plan,
    known: Known,
    ledger: Ledger,
    places: Places,
    schema: dict[str, str],
    seconds: float,
) -> ShardSetManifest:
    """Ledger, items and tombstones of a split on disk, and the manifest that says so."""
    inherited = inherit(known, split, plan.is_live)
    shards: list[ShardEntry] = []
    reasons: collections.Counter[str] = collections.Counter()
    with (
        _parquet(storage.join(spec.uri, LEDGER), LEDGER_SCHEMA) as refused,
        _parquet(storage.join(spec.uri, ITEMS), ITEMS_SCHEMA) as items,
    ):
        for table in ledger.refusals(split):
            reasons.update(table.column(REASON).to_pylist())
            refused.write_table(table)
        for entry, done in _written(plan, places, split):
            shards += [entry] if entry.num_items else []
            items.write_table(done.items.cast(ITEMS_SCHEMA))
            if done.refused.num_rows:
                reasons.update(done.refused.column(REASON).to_pylist())
                refused.write_table(done.refused.select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA))
        for table in inherited.live_items if inherited else ():
            items.write_table(table.select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA))
    beside = [LEDGER, ITEMS, *_write_tombstones(spec.uri, inherited)]
    storage.delete_drafts(spec.uri)
    num_own, num_live = sum(shard.num_items for shard in shards), inherited.num_live if inherited else 0
    assert num_live == int(((plan.status == INHERITED) & (plan.split == SPLITS.index(split))).sum())
    files = artifacts.describe_files(spec.uri, only=beside)
    files |= {shard.name: FileEntry(bytes=shard.bytes, sha256=shard.sha256) for shard in shards}
    return ShardSetManifest(
        **artifacts.common_fields(spec, files, num_own + num_live, seconds),
        split=split,
        shards=shards,
        inherited=inherited.shards if inherited else [],
        num_tombstones=inherited.tombstones.num_rows if inherited else 0,
        item_schema=schema,
        num_rows=num_own + num_live + reasons.total(),
        num_refused=reasons.total(),
        refused_by_reason=dict(reasons),
        num_split_groups=plan.num_split_groups,
    )


def _write_tombstones(uri: str, inherited: Inheritance | None) -> list[str]:
    if inherited is None:
        return []
    with storage.writable_file(storage.join(uri, TOMBSTONES)) as path:
        pq.write_table(inherited.tombstones, path)
    return [TOMBSTONES]


@contextlib.contextmanager
def _parquet(uri: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    with storage.writable_file(uri) as path, pq.ParquetWriter(path, schema) as writer:
        yield writer


def _item_schema(ledger: Ledger) -> dict[str, str]:
    """Attribute -> type, of all rows that are in a shard."""
    kinds = {str: "text", bool: "boolean", int: "integer", float: "number"}
    schema: dict[str, str] = {}
    start = 0
    for name, num_rows in zip(ledger.parts, ledger.part_rows, strict=True):
        with storage.open_input(storage.join(ledger.scratch, name)) as stream:
            column = pq.read_table(stream, columns=[ATTRIBUTES]).column(ATTRIBUTES)
        is_packed = pa.array(np.isin(ledger.plan.status[start : start + num_rows], (PACKED, INHERITED)))
        start += num_rows
        for text in column.filter(is_packed).to_pylist():
            schema |= {
                key: kinds[type(value)] for key, value in json.loads(text).items() if value is not None
            }
    return dict(sorted(schema.items()))
