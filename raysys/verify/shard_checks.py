"""`raysys verify`: what is wrong with WebDataset shards, ours or anybody's.

A shard is read member by member: the tar itself, then every photo, json and txt. Keys that several
shards have are found by their hashes; only the shards concerned are opened again, for the names.
Everything found is damage, but for the order of keys in a tar that we did not write.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from raysys import storage
from raysys.errors import MissingError
from raysys.parallel import Parallel
from raysys.tracking import logs
from raysys.verify.find import ShardPiece, ShardSource
from raysys.verify.health import Finding, ShardHealth, health_of
from raysys.verify.sample_checks import check_sample, live_samples, printable


@dataclass(frozen=True)
class Repeat:
    """A sample whose key an earlier shard has."""

    key: str
    offset: int
    first_uri: str


@dataclass(frozen=True)
class Verdict:
    """What was found: the health of every shard and of the folders, and which samples are repeated."""

    shards: list[ShardHealth]
    folders: list[ShardHealth]
    repeats: dict[str, list[Repeat]]  # by the shard that should not have them


def verify(sources: Sequence[ShardSource], parallel: Parallel, *, max_pixels: int) -> Verdict:
    """Look at every shard of the sources, then for keys that come twice in all of them."""
    pieces = _each_once(piece for source in sources for piece in source.pieces)
    shards = []
    with logs.progress("verify", len(pieces)) as advance:
        for health in parallel(partial(verify_shard, max_pixels=max_pixels), pieces):
            shards.append(health)
            advance(len(shards))
    repeats = find_repeats(pieces, shards, parallel)
    return Verdict(
        shards=[
            health.with_findings(_as_findings(health.uri, repeats.get(health.uri, []))) for health in shards
        ],
        folders=[health_of(source.uri, [*source.findings, *_other_files(source)]) for source in sources],
        repeats=repeats,
    )


def verify_shard(piece: ShardPiece, *, max_pixels: int) -> ShardHealth:
    """What is known of a shard after every member of it was read."""
    try:
        with storage.readable_file(piece.uri) as path, path.open("rb") as stream:
            return _read_through(piece, path, stream, max_pixels)
    except (MissingError, OSError) as error:
        return health_of(piece.uri, [unopened(piece, error)])


def unopened(piece: ShardPiece, error: Exception) -> Finding:
    """Why a shard cannot even be opened."""
    if not isinstance(error, MissingError):
        return Finding("unreadable_shard", piece.uri, printable(str(error)))
    promised = f", its manifest promises {piece.promise.num_items} items" if piece.promise else ""
    return Finding("absent_shard", piece.uri, f"no such file{promised}")


def find_repeats(
    pieces: Sequence[ShardPiece], shards: Sequence[ShardHealth], parallel: Parallel
) -> dict[str, list[Repeat]]:
    """Samples whose key another shard has: all but the first one that is whole, by shard."""
    hashes = np.sort(np.concatenate([np.zeros(0, np.uint64), *(shard.key_hashes for shard in shards)]))
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    places: list[list[int]] = [
        np.flatnonzero(np.isin(shard.key_hashes, repeated)).tolist() for shard in shards
    ]
    concerned = [number for number, found in enumerate(places) if found]
    asked = [(pieces[number], places[number]) for number in concerned]
    first: dict[str, tuple[int, int]] = {}  # key -> shard and place of the one that stays
    names = dict(zip(concerned, parallel(_name_samples, asked), strict=True))
    for wants_whole in (True, False):
        for number in concerned:
            for place, (key, _) in zip(places[number], names[number], strict=True):
                if shards[number].is_whole[place] == wants_whole:
                    first.setdefault(key, (number, place))
    return {
        pieces[number].uri: [
            Repeat(key, offset, pieces[first[key][0]].uri)
            for place, (key, offset) in zip(places[number], names[number], strict=True)
            if first[key] != (number, place)
        ]
        for number in concerned
    }


def _each_once(pieces: Iterable[ShardPiece]) -> list[ShardPiece]:
    """Every tar once; of a ShardSet and a later one that inherits from it, as the later one has it."""
    by_uri: dict[str, ShardPiece] = {}
    for piece in pieces:
        if piece.uri not in by_uri or piece.tombstones_uri:
            by_uri[piece.uri] = piece
    return list(by_uri.values())


def _read_through(piece: ShardPiece, path: Path, stream: IO[bytes], max_pixels: int) -> ShardHealth:
    samples, findings = live_samples(piece, stream)
    findings += _check_promise(piece, path)
    is_whole = np.zeros(len(samples), bool)
    health = health_of(piece.uri, findings, path.stat().st_size)
    for place, sample in enumerate(samples):
        wrong = check_sample(piece, stream, sample, max_pixels)
        is_whole[place] = not wrong
        health = health.with_findings(wrong) if wrong else health
    hashes = np.array([_hash(sample.key) for sample in samples], np.uint64)
    return dataclasses.replace(health, num_items=len(samples), key_hashes=hashes, is_whole=is_whole)


def _check_promise(piece: ShardPiece, path: Path) -> Iterator[Finding]:
    if piece.promise is None:
        return
    num_bytes, sha256 = storage.sha256_of(str(path))
    if num_bytes != piece.promise.bytes:
        detail = f"{num_bytes} bytes, its manifest says {piece.promise.bytes}"
        yield Finding("wrong_bytes", piece.uri, detail)
    elif sha256 != piece.promise.sha256:
        yield Finding("wrong_sha256", piece.uri, "not the bytes that its manifest says: another SHA-256")


def _as_findings(uri: str, repeats: Sequence[Repeat]) -> Iterator[Finding]:
    for repeat in repeats:
        detail = f"'{printable(repeat.key)}' is in {repeat.first_uri}, too"
        yield Finding("repeated_key", uri, detail, printable(repeat.key), repeat.offset)


def _name_samples(asked: tuple[ShardPiece, list[int]]) -> list[tuple[str, int]]:
    """Key and offset of the samples at these places of a shard."""
    piece, places = asked
    with storage.readable_file(piece.uri) as path, path.open("rb") as stream:
        samples, _ = live_samples(piece, stream)
    chosen = (samples[place] for place in places)
    return [(sample.key, next(iter(sample.members.values())).offset) for sample in chosen]


def _other_files(source: ShardSource) -> Iterator[Finding]:
    """What is wrong with the files of a ShardSet that are no tars: its ledger, its tombstones."""
    if source.manifest is None:
        return
    tar_names = {entry.name for entry in source.manifest.shards}
    for name in itertools.filterfalse(tar_names.__contains__, source.manifest.files):
        promised, uri = source.manifest.files[name], storage.join(source.uri, name)
        if not storage.exists(uri):
            yield Finding("wrong_file", uri, "no such file, but the manifest names it")
        elif storage.sha256_of(uri) != (promised.bytes, promised.sha256):
            yield Finding("wrong_file", uri, "not the bytes that the manifest says")


def _hash(key: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big"
    )
