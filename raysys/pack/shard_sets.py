"""`raysys pack`: a catalogue becomes one ShardSet a split, from top to bottom.

Survey: parts of the catalogue are looked at, each on its own, and leave their facts in a scratch folder.
Plan: on the facts alone, which row goes to which shard. Write: rows are brought together by shard, and each
shard becomes a tar. What is in the scratch folder is not done again, and all of it is a function of the
catalogue: a pack that was killed continues, and gives the bytes of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, InputEntry, ShardSetManifest
from raysys.columns import GROUP, ITEM_ID
from raysys.config.schema import SPLITS, ColumnSplit, FolderCatalog, PackConfig, TableCatalog
from raysys.errors import InputError
from raysys.pack import publish
from raysys.pack.catalog import CatalogSource
from raysys.pack.parent import read_known
from raysys.pack.plan import NOWHERE, Plan, plan, read_facts
from raysys.pack.scan import ROWS_PER_PART, Part, cut, survey
from raysys.pack.scratch import scratch_folder
from raysys.pack.write import KEY, ROWS, SHARD_NUMBER, Places, read_done, write_shards
from raysys.shards.tar import key_of
from raysys.tracking import logs

ROWS_PER_READ = 131_072  # of the facts: some 80 MB


class Executor(Protocol):
    """How the two streams of a pack run: one after the other in a test, through Ray Data on a cluster."""

    def survey(
        self, reads: Sequence[Callable[[], Iterator[Part]]], work: Callable[[Part], int]
    ) -> Iterator[int]:
        """Yield `work(part)` for every part of every read."""
        ...

    def write(
        self,
        reads: Sequence[Callable[[], pa.Table]],
        num_shards: int,
        work: Callable[[pa.Table], int],
    ) -> Iterator[int]:
        """Bring all rows together by shard number, and yield `work(rows)` for rows that are whole shards."""
        ...


@dataclass(frozen=True)
class Catalog:
    """What is packed."""

    section: TableCatalog | FolderCatalog
    sources: Sequence[CatalogSource]
    num_rows: int
    entry: InputEntry


def pack_shard_sets(
    catalog: Catalog, section: PackConfig, specs: Mapping[str, ArtifactSpec], executor: Executor
) -> dict[str, ShardSetManifest]:
    """Make the ShardSet of every split that `specs` names.

    Raises: DamagedData above `max_bad_fraction` and InputError if nothing is left for training, before
    anything is published; Busy if another pack is at work here.
    """
    started = time.monotonic()
    home = specs["train"].uri.rpartition("/")[0]
    with scratch_folder(
        home, artifacts.canonical_json([specs[split].spec_hash for split in SPLITS])
    ) as scratch:
        parts = _survey(catalog, section, scratch, executor)
        known = read_known(section.parent)
        facts = read_facts(scratch, parts)
        made = plan(facts, section, known)
        part_rows = facts.part_rows
        del facts
        assert len(made.status) == catalog.num_rows, "rows were lost on the way"
        ledger = publish.Ledger(catalog.section.path, scratch, parts, part_rows, made)
        ledger.check(section.max_bad_fraction)
        _require_training_items(made, catalog.section.path)
        for spec in specs.values():
            if artifacts.find_up_to_date(spec) is None:
                artifacts.begin(spec)
        places = Places({split: spec.uri for split, spec in specs.items()}, scratch)
        _write(made, parts, part_rows, places, executor)
        return publish.publish(specs, made, known, ledger, places, section, time.monotonic() - started)


def _survey(catalog: Catalog, section: PackConfig, scratch: str, executor: Executor) -> list[str]:
    """The files with the facts of all parts, in the order of the catalogue."""
    found = {name.removesuffix(".parquet") for name in _parts(scratch)}
    split_column = section.split.column if isinstance(section.split, ColumnSplit) else None
    reads = [
        partial(_read_source, number, source, catalog.section, split_column, found, ROWS_PER_PART)
        for number, source in enumerate(catalog.sources)
    ]
    with logs.progress("survey", catalog.num_rows) as advance:
        done = sum(_num_rows(storage.join(scratch, name)) for name in _parts(scratch))
        advance(done)
        if done < catalog.num_rows:
            for num_rows in executor.survey(reads, partial(survey, section=section, folder=scratch)):
                advance(done := done + num_rows)
    return _parts(scratch)


def _read_source(
    number: int,
    source: CatalogSource,
    section: TableCatalog | FolderCatalog,
    split_column: str | None,
    done: set[str],
    rows_per_part: int,
) -> Iterator[Part]:
    return cut(number, source.rows(section, split_column), done, rows_per_part)


def _write(made: Plan, parts: list[str], part_rows: list[int], places: Places, executor: Executor) -> None:
    is_missing = [read_done(shard, places) is None for shard in made.shards]
    total = sum(shard.num_items for shard in made.shards)
    missing = sum(shard.num_items for shard, wanted in zip(made.shards, is_missing, strict=True) if wanted)
    with logs.progress("write", total) as advance:
        advance(done := total - missing)
        if missing:
            reads = _write_plan(made, parts, part_rows, is_missing, places.scratch)
            work = partial(write_shards, shards=made.shards, places=places)
            for num_rows in executor.write(reads, len(made.shards), work):
                advance(done := done + num_rows)
    assert done == total, f"{total - done} rows came to no shard"


def _write_plan(
    made: Plan, parts: list[str], part_rows: list[int], is_missing: list[bool], scratch: str
) -> list[Callable[[], pa.Table]]:
    """Where the rows of some parts at a time go, as a file that their reader joins to their facts."""
    reads: list[Callable[[], pa.Table]] = []
    wanted = pa.array([*is_missing, False])  # the last stands for NOWHERE
    first = start = stop = 0
    for number, num_rows in enumerate(part_rows):
        stop += num_rows
        if stop - start < ROWS_PER_READ and number + 1 < len(parts):
            continue
        shard = pa.array(made.shard[start:stop])
        group = pa.array(made.group[start:stop], mask=made.shard[start:stop] == NOWHERE)
        is_wanted = wanted.take(pa.array(made.shard[start:stop] % len(wanted)))
        table = pa.table({SHARD_NUMBER: shard, GROUP: made.names.take(group), "is_wanted": is_wanted})
        uri = storage.join(scratch, f"plan-{len(reads):06d}.parquet")
        with storage.writable_file(uri) as path:
            pq.write_table(table, path)
        reads.append(
            partial(_read_planned, uri, [storage.join(scratch, name) for name in parts[first : number + 1]])
        )
        first, start = number + 1, stop
    return reads


def _read_planned(plan_uri: str, part_uris: list[str]) -> pa.Table:
    """The rows that go to a shard, with all that a tar says of them."""
    planned = _read_table(plan_uri)
    names = [name for name in ROWS.names if name not in (SHARD_NUMBER, KEY, GROUP)]
    facts = pa.concat_tables([_read_table(uri, names) for uri in part_uris])
    for name in (SHARD_NUMBER, GROUP):
        facts = facts.append_column(name, planned.column(name))
    rows = facts.filter(planned.column("is_wanted"))
    keys = [key_of(item_id) for item_id in rows.column(ITEM_ID).to_pylist()]
    rows = rows.append_column(KEY, pa.array(keys, pa.string()))
    return rows.select(ROWS.names).cast(ROWS)


def _require_training_items(made: Plan, source: str) -> None:
    is_kept = made.group != NOWHERE
    if not (made.split[is_kept] == SPLITS.index("train")).any():
        raise InputError(f"{source}: no usable row is in the train split; check pack.split and the catalogue")


def _parts(scratch: str) -> list[str]:
    names = (name for name in storage.list_files(scratch) if name.startswith("part-"))
    return [name for name in names if name.endswith(".parquet")]


def _num_rows(uri: str) -> int:
    with storage.open_input(uri) as stream:
        return int(pq.read_metadata(stream).num_rows)


def _read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open_input(uri) as stream:
        return pq.read_table(stream, columns=columns)
