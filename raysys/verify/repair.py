"""`raysys verify --repair OUT`: a clean copy of damaged shards, and a ledger of what it had to leave out.

Samples that are whole are copied byte by byte, sorted by key. A line of the ledger is a sample that was
left out, or a part of a tar that is no sample: an extra member, a place that nobody can read, a missing
end. So samples in = samples kept + samples lost. A ShardSet becomes a ShardSet.
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
from raysys.shards.shard_set import LEDGER
from raysys.shards.tar import Sample
from raysys.tracking import logs
from raysys.verify.find import ShardPiece, ShardSource, shared_parts
from raysys.verify.health import Finding, FindingKind
from raysys.verify.sample_checks import check_sample, live_samples, printable, read_member
from raysys.verify.shard_checks import Repeat, unopened

_NOTHING_LOST: tuple[FindingKind, ...] = ("unsorted", "scattered_key")  # the copy has them in order


@dataclass(frozen=True)
class Refusal:
    """A line of the ledger: which item was refused, why, and where it came from."""

    item_id: str
    reason: str
    detail: str
    source: str


@dataclass(frozen=True)
class Repaired:
    """What became of samples; `num_parts` counts the lines of the ledger that are no sample."""

    num_kept: int
    num_lost: int
    num_parts: int


@dataclass(frozen=True)
class RepairTask:
    """A shard to copy: from where, to where, and which repeated samples to leave out."""

    piece: ShardPiece
    uri: str
    repeats: tuple[Repeat, ...]


@dataclass(frozen=True)
class RepairedShard:
    """A copied shard (None if nothing in it was whole) and the lines that it adds to the ledger."""

    entry: ShardEntry | None
    lost: list[Refusal]
    parts: list[Refusal]


def require_empty(out_uri: str) -> None:
    """Raises: InputError if something is at the place of the copy."""
    if storage.exists(out_uri) and (not storage.is_folder(out_uri) or storage.list_files(out_uri)):
        raise InputError(f"--repair {out_uri}: there is something already; name a new or an empty folder")


def repair(
    sources: Sequence[ShardSource],
    out_uri: str,
    repeats: Mapping[str, Sequence[Repeat]],
    parallel: Parallel,
    *,
    max_pixels: int,
) -> Repaired:
    """Write a clean copy of every source: at `out_uri` itself, or below it as they lie to one another.

    Raises: InputError if `out_uri` is not empty, DamagedData if no sample is whole.
    """
    require_empty(out_uri)
    done = [
        _repair_source(source, place, repeats, parallel, max_pixels)
        for source, place in zip(sources, places_below(out_uri, [s.uri for s in sources]), strict=True)
    ]
    total = Repaired(
        *(sum(getattr(one, name) for one in done) for name in ("num_kept", "num_lost", "num_parts"))
    )
    if not total.num_kept:
        raise DamagedData(f"{sources[0].uri}: no sample is whole; {out_uri} has the ledger alone")
    return total


def places_below(out_uri: str, uris: Sequence[str]) -> list[str]:
    """Where the copy of each folder goes: one to `out_uri`, several below it by their relative paths."""
    shared = len(shared_parts(uris))
    below = [[part for part in uri.split("/")[shared:] if part and not part.endswith(":")] for uri in uris]
    return [storage.join(out_uri, *parts) if parts else out_uri for parts in below]


def repair_shard(task: RepairTask, *, max_pixels: int) -> RepairedShard:
    """Copy the whole samples of a shard, and say what was left out."""
    try:
        with storage.readable_file(task.piece.uri) as path, path.open("rb") as stream:
            return _copy(task, stream, max_pixels)
    except (MissingError, OSError) as error:
        return RepairedShard(None, [], [_line(unopened(task.piece, error))])


def _copy(task: RepairTask, stream: IO[bytes], max_pixels: int) -> RepairedShard:
    import webdataset  # brings torch along, which only a writer should wait for

    samples, faults = live_samples(task.piece, stream)
    repeats = {repeat.key: repeat for repeat in task.repeats}
    lost: dict[str, Refusal] = {}
    kept: list[Sample] = []
    for sample in sorted(samples, key=lambda sample: sample.key):
        wrong = check_sample(task.piece, stream, sample, max_pixels)
        if wrong:
            lost[sample.key] = _line(_cause(wrong, faults))
        elif sample.key in repeats:
            lost[sample.key] = _repeated(task.piece, repeats[sample.key])
        else:
            kept.append(sample)
    if kept:
        with (
            storage.writable_file(task.uri) as path,
            path.open("wb") as out,
            webdataset.TarWriter(out, mtime=0, encoder=False, keep_meta=True) as writer,
        ):
            for sample in kept:
                content = {name: read_member(stream, at) for name, at in sample.members.items()}
                writer.write({"__key__": sample.key, **content})
    known = {printable(sample.key) for sample in samples}
    parts = []
    for fault in faults:
        if fault.kind == "truncated" and fault.key not in known:  # all that is left of it is its name
            lost[fault.key] = _line(fault)
        elif _is_part(task.piece, fault, len(samples)) and not (
            fault.kind == "truncated" and fault.key in lost
        ):
            parts.append(_line(fault))
    return RepairedShard(_entry(task.uri, len(kept)) if kept else None, list(lost.values()), parts)


def _cause(wrong: list[Finding], faults: list[Finding]) -> Finding:
    """Why a sample is not whole: the cut that took a member of it, else what is wrong with it first."""
    cuts = (fault for fault in faults if fault.kind == "truncated" and fault.key == wrong[0].key)
    return next(cuts, wrong[0])


def _is_part(piece: ShardPiece, fault: Finding, num_items: int) -> bool:
    """Whether a fault of the tar may have cost something that is no sample we know of."""
    if fault.kind == "wrong_num_items":
        return piece.promise is not None and num_items < piece.promise.num_items
    return fault.kind not in _NOTHING_LOST


def _repair_source(
    source: ShardSource,
    out_uri: str,
    repeats: Mapping[str, Sequence[Repeat]],
    parallel: Parallel,
    max_pixels: int,
) -> Repaired:
    started = time.monotonic()
    spec = _target(source, out_uri, max_pixels)
    if spec:
        artifacts.begin(spec)
    tasks = [
        RepairTask(piece, storage.join(out_uri, name), tuple(repeats.get(piece.uri, ())))
        for piece, name in zip(source.pieces, _names(source.pieces), strict=True)
    ]
    shards: list[ShardEntry] = []
    reasons: collections.Counter[str] = collections.Counter()
    num_lost = 0
    with logs.progress("repair", len(tasks)) as advance, _ledger(out_uri) as ledger:
        work = partial(repair_shard, max_pixels=max_pixels)
        for number, made in enumerate(parallel(work, tasks), start=1):
            lines = [*made.lost, *made.parts]
            ledger.write_table(_table(lines))
            reasons.update(line.reason for line in lines)
            num_lost += len(made.lost)
            shards += [made.entry] if made.entry else []
            advance(number)
    if spec and source.manifest:
        _publish(spec, source.manifest, shards, dict(reasons), time.monotonic() - started)
    num_kept = sum(shard.num_items for shard in shards)
    return Repaired(num_kept, num_lost, reasons.total() - num_lost)


def _target(source: ShardSource, out_uri: str, max_pixels: int) -> ArtifactSpec | None:
    """The ShardSet that the copy of a ShardSet is; the copy of anything else is tars and a ledger."""
    if source.manifest is None:
        return None
    said = {**source.manifest.config, "repaired": {"max_pixels": max_pixels}}
    origin = InputEntry(uri=source.uri, fingerprint=source.manifest.fingerprint)
    return ArtifactSpec(out_uri, ShardSetManifest, said, {"shards": origin})


def _publish(
    spec: ArtifactSpec,
    old: ShardSetManifest,
    shards: list[ShardEntry],
    reasons: dict[str, int],
    seconds: float,
) -> None:
    files = artifacts.describe_files(spec.uri, only=[LEDGER])
    files |= {shard.name: FileEntry(bytes=shard.bytes, sha256=shard.sha256) for shard in shards}
    num_kept, num_refused = sum(shard.num_items for shard in shards), sum(reasons.values())
    new = {
        **artifacts.common_fields(spec, files, num_kept, seconds),
        "shards": shards,
        "inherited": [],  # the copy holds what is live of them
        "num_tombstones": 0,
        "num_rows": num_kept + num_refused,
        "num_refused": num_refused,
        "refused_by_reason": reasons,
    }
    artifacts.publish(spec.uri, old.model_copy(update=new))


def _names(pieces: Sequence[ShardPiece]) -> list[str]:
    """Names of the copies: as they were, unless inherited shards have the same."""
    names = [piece.uri.rpartition("/")[2] for piece in pieces]
    return names if len(set(names)) == len(names) else [f"{number:05d}.tar" for number in range(len(names))]


def _entry(uri: str, num_items: int) -> ShardEntry:
    num_bytes, sha256 = storage.sha256_of(uri)
    return ShardEntry(name=uri.rpartition("/")[2], num_items=num_items, bytes=num_bytes, sha256=sha256)


def _repeated(piece: ShardPiece, repeat: Repeat) -> Refusal:
    detail = f"the copy has the one of {repeat.first_uri}"
    return _line(Finding("repeated_key", piece.uri, detail, printable(repeat.key), repeat.offset))


def _line(finding: Finding) -> Refusal:
    return Refusal(finding.key, finding.kind, finding.detail, f"{finding.uri}#{finding.offset}")


def _table(lines: Sequence[Refusal]) -> pa.Table:
    rows = [{ITEM_ID: r.item_id, REASON: r.reason, DETAIL: r.detail, SOURCE: r.source} for r in lines]
    return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)


@contextlib.contextmanager
def _ledger(out_uri: str) -> Iterator[pq.ParquetWriter]:
    """Lines go to disk shard by shard: a large set may lose much."""
    with (
        storage.writable_file(storage.join(out_uri, LEDGER)) as path,
        pq.ParquetWriter(path, LEDGER_SCHEMA) as writer,
    ):
        yield writer
