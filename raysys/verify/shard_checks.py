"""Check shards of raysys or of any WebDataset, and find keys that several shards have.

Every member of a shard is read: first the headers of the tar, then each photo, json and txt. Repeated keys
are found by their hashes; only the shards that have one are opened again, for the names. Every finding
is damage, except remarks: unsorted keys in a tar that raysys did not write, ignored members, compression.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from raysys import artifacts, storage
from raysys.errors import MissingError
from raysys.parallel import Parallel
from raysys.shards.open_tar import OpenTar, open_tar
from raysys.shards.reader import ShardRef
from raysys.tracking import logs
from raysys.verify.find import ShardSource
from raysys.verify.health import Finding, ShardHealth, health_of
from raysys.verify.sample_checks import live_samples, valid_utf8


@dataclass(frozen=True)
class RepeatedSample:
    """A sample whose key another shard has, too; `first_uri` is the shard whose sample is used."""

    key: str
    offset: int
    first_uri: str


@dataclass(frozen=True)
class VerifyResult:
    """The health of every shard and folder, and the repeated samples."""

    shards: list[ShardHealth]
    folders: list[ShardHealth]
    repeats: dict[str, list[RepeatedSample]]  # URI of a shard -> its samples that repeat those of another


def verify(sources: Sequence[ShardSource], parallel: Parallel, *, max_pixels: int) -> VerifyResult:
    """Check every shard of the sources, then find keys that appear more than once in all of them."""
    shards = _unique_shards(shard for source in sources for shard in source.shards)
    healths = []
    with logs.progress("verify", len(shards)) as advance:
        for health in parallel(partial(verify_shard, max_pixels=max_pixels), shards):
            healths.append(health)
            advance(len(healths))
    repeats = find_repeats(shards, healths, parallel)
    return VerifyResult(
        shards=[
            health.with_findings(_repeat_findings(health.uri, repeats.get(health.uri, [])))
            for health in healths
        ],
        folders=[health_of(source.uri, [*source.findings, *_check_files(source)]) for source in sources],
        repeats=repeats,
    )


def verify_shard(shard: ShardRef, *, max_pixels: int) -> ShardHealth:
    """Read every member of a shard and return what was found."""
    try:
        with open_tar(shard.uri) as opened:
            return _check_open_shard(shard, opened, max_pixels)
    except (MissingError, OSError) as error:
        return health_of(shard.uri, [open_failure(shard, error)])


def open_failure(shard: ShardRef, error: Exception) -> Finding:
    """The finding for a shard that cannot be opened."""
    if not isinstance(error, MissingError):
        return Finding("unreadable_shard", shard.uri, valid_utf8(str(error)))
    num_expected = shard.num_items + shard.num_others
    stated = f", but its manifest states {num_expected} items" if shard.has_manifest else ""
    return Finding("absent_shard", shard.uri, f"no such file{stated}")


def find_repeats(
    shards: Sequence[ShardRef], healths: Sequence[ShardHealth], parallel: Parallel
) -> dict[str, list[RepeatedSample]]:
    """For each shard, its samples whose key another shard has.

    Of the samples with one key, the first intact one is used (the first one if none is intact), and the
    others are returned.
    """
    hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *(health.key_hashes for health in healths)]))
    repeated_hashes = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    rows_by_shard: list[list[int]] = [
        np.flatnonzero(np.isin(health.key_hashes, repeated_hashes)).tolist() for health in healths
    ]
    affected = [number for number, rows in enumerate(rows_by_shard) if rows]
    requests = [(shards[number], rows_by_shard[number]) for number in affected]
    names = dict(zip(affected, parallel(_name_samples, requests), strict=True))
    used: dict[str, tuple[int, int]] = {}  # key -> shard number and row of the sample that is used
    for is_intact in (True, False):
        for number in affected:
            for row, (key, _) in zip(rows_by_shard[number], names[number], strict=True):
                if healths[number].is_intact[row] == is_intact:
                    used.setdefault(key, (number, row))
    return {
        shards[number].uri: [
            RepeatedSample(key, offset, shards[used[key][0]].uri)
            for row, (key, offset) in zip(rows_by_shard[number], names[number], strict=True)
            if used[key] != (number, row)
        ]
        for number in affected
    }


def _unique_shards(shards: Iterable[ShardRef]) -> list[ShardRef]:
    """Each tar once; of a tar that a later ShardSet inherits, the items of the later one are checked.

    A tar of another tool has items of several splits, each in the table of its ShardSet.
    """
    by_uri: dict[tuple[str, str | None], ShardRef] = {}
    for shard in shards:
        key = (shard.uri, shard.items_uri if shard.is_indexed else None)
        if key not in by_uri or shard.items_uri:
            by_uri[key] = shard
    return list(by_uri.values())


def _check_open_shard(shard: ShardRef, opened: OpenTar, max_pixels: int) -> ShardHealth:
    live = live_samples(shard, opened)
    num_bytes = opened.path.stat().st_size
    findings = [*live.findings, *_check_bytes(shard, num_bytes, live.is_unchanged)]
    is_intact = np.zeros(len(live.samples), bool)
    health = health_of(shard.uri, findings, num_bytes)
    for row, sample in enumerate(live.samples):
        intact, problems = live.check(sample, max_pixels)
        is_intact[row] = intact is not None
        health = health.with_findings(problems) if problems else health
    hashes = np.array([_hash(sample.key) for sample in live.samples], np.uint64)
    return dataclasses.replace(health, num_items=len(hashes), key_hashes=hashes, is_intact=is_intact)


def _check_bytes(shard: ShardRef, num_bytes: int, is_unchanged: bool) -> Iterator[Finding]:
    if is_unchanged or not (shard.has_manifest or shard.is_indexed):
        return
    if num_bytes != shard.num_bytes:
        detail = f"{num_bytes} bytes, but its manifest states {shard.num_bytes}"
        yield Finding("wrong_bytes", shard.uri, detail)
    else:
        yield Finding("wrong_sha256", shard.uri, "the SHA-256 differs from the manifest")


def _repeat_findings(uri: str, repeats: Sequence[RepeatedSample]) -> Iterator[Finding]:
    for repeat in repeats:
        detail = f"'{valid_utf8(repeat.key)}' is also in {repeat.first_uri}"
        yield Finding("repeated_key", uri, detail, valid_utf8(repeat.key), repeat.offset)


def _name_samples(request: tuple[ShardRef, list[int]]) -> list[tuple[str, int]]:
    """Key and offset of the samples at these rows of a shard."""
    shard, rows = request
    with open_tar(shard.uri) as opened:
        samples = live_samples(shard, opened).samples
    chosen = (samples[row] for row in rows)
    return [(sample.key, next(iter(sample.members.values())).offset) for sample in chosen]


def _check_files(source: ShardSource) -> Iterator[Finding]:
    """Findings about the files of a ShardSet beside its tars, such as the ledger and the table of items."""
    if source.manifest is None:
        return
    folder = artifacts.files_uri(source.uri, source.manifest)
    tar_names = {entry.name for entry in source.manifest.shards}
    for name in itertools.filterfalse(tar_names.__contains__, source.manifest.files):
        expected, uri = source.manifest.files[name], storage.join(folder, name)
        if not storage.exists(uri):
            yield Finding("wrong_file", uri, "no such file, but the manifest names it")
        elif storage.sha256_of(uri) != (expected.bytes, expected.sha256):
            yield Finding("wrong_file", uri, "the size or the SHA-256 differs from the manifest")


def _hash(key: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big"
    )
