"""`raysys verify --repair OUT`: a clean copy of damaged shards, and a ledger of everything it omits.

Intact samples are copied byte by byte, sorted by key. A row of the ledger is either a lost sample or an
unidentified part of a tar: a repeated member, unreadable bytes, a missing end-of-archive marker. So samples
in = samples kept + samples lost. The copy of a ShardSet is a ShardSet.
"""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, FileEntry, InputEntry, ShardEntry, ShardSetManifest
from raysys.columns import DETAIL, ITEM_ID, LEDGER_SCHEMA, REASON, SOURCE
from raysys.errors import DamagedData, InputError, MissingError
from raysys.parallel import Parallel
from raysys.shards.open_tar import OpenTar, open_tar
from raysys.shards.paths import TAR_NAME
from raysys.shards.reader import ShardRef, read_member
from raysys.shards.samples import Sample
from raysys.shards.shard_set import LEDGER
from raysys.tracking import logs
from raysys.verify.find import ShardSource, common_parts
from raysys.verify.health import Finding, FindingKind
from raysys.verify.sample_checks import live_samples, valid_utf8
from raysys.verify.shard_checks import RepeatedSample, open_failure

# The copy has all members, in order.
_LOSSLESS: tuple[FindingKind, ...] = ("unsorted", "scattered_key", "dotted_name", "link", "compressed")
_LOST_MEMBER: tuple[FindingKind, ...] = ("truncated", "broken_link", "not_a_file")


@dataclass(frozen=True)
class LedgerRow:
    """A row of the ledger: the item, the reason, a detail, and the URI and offset of its source."""

    item_id: str
    reason: str
    detail: str
    source: str


@dataclass(frozen=True)
class RepairSummary:
    """Numbers of samples kept and lost; `num_parts` counts the rows of the ledger that are not samples."""

    num_kept: int
    num_lost: int
    num_parts: int


@dataclass(frozen=True)
class RepairTask:
    """A shard to copy, the URI of the copy, and the repeated samples to omit."""

    shard: ShardRef
    uri: str
    repeats: tuple[RepeatedSample, ...]


@dataclass(frozen=True)
class RepairedShard:
    """The copy of a shard (None if it has no intact sample) and its rows of the ledger."""

    entry: ShardEntry | None
    lost: list[LedgerRow]
    parts: list[LedgerRow]


def require_empty(out_uri: str) -> None:
    """Check that `out_uri` does not exist or is an empty folder.

    Raises: InputError if it is a file or a folder with files.
    """
    if storage.exists(out_uri) and (not storage.is_folder(out_uri) or storage.list_files(out_uri)):
        raise InputError(f"--repair {out_uri}: not empty; name a new or an empty folder")


def repair(
    sources: Sequence[ShardSource],
    out_uri: str,
    repeats: Mapping[str, Sequence[RepeatedSample]],
    parallel: Parallel,
    *,
    max_pixels: int,
) -> RepairSummary:
    """Write a clean copy of every source: one source to `out_uri`, several to folders below it.

    Raises: InputError if `out_uri` is not empty or a ShardSet refers to tars of another tool, DamagedData if
    no sample is intact.
    """
    require_empty(out_uri)
    if indexed := [shard for source in sources for shard in source.shards if shard.is_indexed]:
        raise InputError(
            f"--repair {out_uri}: {sources[0].uri} refers to tars of another tool (first: {indexed[0].uri}); "
            "repair these tars by their own paths, and pack the copy"
        )
    copy_uris = copy_uris_below(out_uri, [source.uri for source in sources])
    summaries = [
        _repair_source(source, copy_uri, repeats, parallel, max_pixels)
        for source, copy_uri in zip(sources, copy_uris, strict=True)
    ]
    total = RepairSummary(
        num_kept=sum(summary.num_kept for summary in summaries),
        num_lost=sum(summary.num_lost for summary in summaries),
        num_parts=sum(summary.num_parts for summary in summaries),
    )
    if not total.num_kept:
        raise DamagedData(
            f"{sources[0].uri}: no sample is intact; {out_uri} contains only the ledger: restore the shards"
        )
    return total


def copy_uris_below(out_uri: str, uris: Sequence[str]) -> list[str]:
    """The URI of each folder's copy: `out_uri` for one folder, relative paths below it for several."""
    num_common = len(common_parts(uris))
    relative = [
        [part for part in uri.split("/")[num_common:] if part and not part.endswith(":")] for uri in uris
    ]
    return [storage.join(out_uri, *parts) if parts else out_uri for parts in relative]


def repair_shard(task: RepairTask, *, max_pixels: int) -> RepairedShard:
    """Copy the intact samples of a shard, and list what was omitted."""
    try:
        with open_tar(task.shard.uri) as opened:
            return _copy(task, opened, max_pixels)
    except (MissingError, OSError) as error:
        return RepairedShard(None, [], [_ledger_row(open_failure(task.shard, error))])


def _copy(task: RepairTask, opened: OpenTar, max_pixels: int) -> RepairedShard:
    live = live_samples(task.shard, opened)
    repeats = {repeat.key: repeat for repeat in task.repeats}
    lost: dict[str, LedgerRow] = {}
    kept: list[Sample] = []
    for sample in sorted(live.samples, key=lambda sample: sample.key):
        intact, problems = live.check(sample, max_pixels)
        if intact is None:
            lost[valid_utf8(sample.key)] = _ledger_row(_cause(problems, live.findings))
        elif sample.key in repeats:
            lost[valid_utf8(sample.key)] = _repeat_row(task.shard, repeats[sample.key])
        else:
            kept.append(intact)
    if kept:
        _write_samples(task.uri, kept, opened.stream)
    known_keys = {valid_utf8(sample.key) for sample in live.samples}
    parts = []
    for finding in live.findings:
        if finding.kind in _LOST_MEMBER and finding.key not in known_keys:  # only the name is left
            lost.setdefault(finding.key, _ledger_row(finding))
        elif _is_part(task.shard, finding, len(live.samples)) and not (
            finding.kind in _LOST_MEMBER and finding.key in lost
        ):
            parts.append(_ledger_row(finding))
    return RepairedShard(_entry(task.uri, len(kept)) if kept else None, list(lost.values()), parts)


def _write_samples(uri: str, samples: Sequence[Sample], stream: IO[bytes]) -> None:
    """Copy the members of the samples from an open tar to a new one."""
    import webdataset  # imports torch, which only the writer needs

    with (
        storage.writable_file(uri) as path,
        path.open("wb") as out,
        webdataset.TarWriter(out, mtime=0, encoder=False, keep_meta=True) as writer,
    ):
        for sample in samples:
            content = {suffix: read_member(stream, member) for suffix, member in sample.members.items()}
            writer.write({"__key__": sample.key, **content})


def _cause(problems: list[Finding], tar_findings: list[Finding]) -> Finding:
    """Why a sample is damaged: the cut or the link that cost one of its members, else its first problem."""
    key = problems[0].key
    causes = (finding for finding in tar_findings if finding.kind in _LOST_MEMBER and finding.key == key)
    return next(causes, problems[0])


def _is_part(shard: ShardRef, finding: Finding, num_samples: int) -> bool:
    """Whether a finding about the tar may have cost data that belongs to no known sample."""
    if finding.kind == "wrong_num_items":
        return shard.has_manifest and num_samples < shard.num_items + shard.num_others
    return finding.kind not in _LOSSLESS


def _repair_source(
    source: ShardSource,
    out_uri: str,
    repeats: Mapping[str, Sequence[RepeatedSample]],
    parallel: Parallel,
    max_pixels: int,
) -> RepairSummary:
    started = time.monotonic()
    spec = _copy_spec(source, out_uri, max_pixels)
    if spec:
        artifacts.begin(spec)
    tasks = [
        RepairTask(shard, storage.join(out_uri, name), tuple(repeats.get(shard.uri, ())))
        for shard, name in zip(source.shards, _copy_names(source.shards), strict=True)
    ]
    entries: list[ShardEntry] = []
    reasons: collections.Counter[str] = collections.Counter()
    num_lost = 0
    with logs.progress("repair", len(tasks)) as advance, _open_ledger(out_uri) as ledger:
        for number, repaired in enumerate(
            parallel(partial(repair_shard, max_pixels=max_pixels), tasks), start=1
        ):
            rows = [*repaired.lost, *repaired.parts]
            ledger.write_table(_to_table(rows))
            reasons.update(row.reason for row in rows)
            num_lost += len(repaired.lost)
            entries += [repaired.entry] if repaired.entry else []
            advance(number)
    if spec and source.manifest:
        _publish(spec, source.manifest, entries, dict(reasons), time.monotonic() - started)
    num_kept = sum(entry.num_items for entry in entries)
    return RepairSummary(num_kept, num_lost, reasons.total() - num_lost)


def _copy_spec(source: ShardSource, out_uri: str, max_pixels: int) -> ArtifactSpec | None:
    """The ShardSet to publish as the copy; None if the source is no ShardSet: its copy has no manifest."""
    if source.manifest is None:
        return None
    config = {**source.manifest.config, "repaired": {"max_pixels": max_pixels}}
    origin = InputEntry(uri=source.uri, fingerprint=source.manifest.fingerprint)
    return ArtifactSpec(out_uri, ShardSetManifest, config, {"shards": origin})


def _publish(
    spec: ArtifactSpec,
    old: ShardSetManifest,
    entries: list[ShardEntry],
    reasons: dict[str, int],
    seconds: float,
) -> None:
    files = artifacts.describe_files(spec.uri, only=[LEDGER])
    files |= {entry.name: FileEntry(bytes=entry.bytes, sha256=entry.sha256) for entry in entries}
    num_kept, num_refused = sum(entry.num_items for entry in entries), sum(reasons.values())
    new = {
        **artifacts.common_fields(spec, files, num_kept, seconds),
        "folder": "",
        "shards": entries,
        "inherited": [],  # the copy contains the live samples of inherited shards
        "num_rows": num_kept + num_refused,
        "num_refused": num_refused,
        "refused_by_reason": reasons,
    }
    artifacts.publish(spec.uri, old.model_copy(update=new))


def _copy_names(shards: Sequence[ShardRef]) -> list[str]:
    """File names of the copies, which are not compressed: the original names, or numbers if two are equal."""
    stems = [TAR_NAME.sub("", shard.uri.rpartition("/")[2]) for shard in shards]
    if len(set(stems)) < len(stems):
        stems = [f"{number:05d}" for number in range(len(stems))]
    return [f"{stem}.tar" for stem in stems]


def _entry(uri: str, num_items: int) -> ShardEntry:
    num_bytes, sha256 = storage.sha256_of(uri)
    return ShardEntry(name=uri.rpartition("/")[2], num_items=num_items, bytes=num_bytes, sha256=sha256)


def _repeat_row(shard: ShardRef, repeat: RepeatedSample) -> LedgerRow:
    detail = f"the copy has the sample from {repeat.first_uri}"
    return _ledger_row(Finding("repeated_key", shard.uri, detail, valid_utf8(repeat.key), repeat.offset))


def _ledger_row(finding: Finding) -> LedgerRow:
    return LedgerRow(finding.key, finding.kind, finding.detail, f"{finding.uri}#{finding.offset}")


def _to_table(rows: Sequence[LedgerRow]) -> pa.Table:
    records = [
        {ITEM_ID: row.item_id, REASON: row.reason, DETAIL: row.detail, SOURCE: row.source} for row in rows
    ]
    return pa.Table.from_pylist(records, schema=LEDGER_SCHEMA)


@contextlib.contextmanager
def _open_ledger(out_uri: str) -> Iterator[pq.ParquetWriter]:
    """A writer of the ledger; rows go to disk shard by shard, because a large set may have many."""
    with (
        storage.writable_file(storage.join(out_uri, LEDGER)) as path,
        pq.ParquetWriter(path, LEDGER_SCHEMA) as writer,
    ):
        yield writer
