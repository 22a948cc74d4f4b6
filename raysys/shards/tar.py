"""Read a WebDataset tar as samples: the offset of every member, and every fault of the file.

`tarfile` stops without an error at a damaged header, at a missing end-of-archive marker and at a cut
between two members. This module continues after the damage at the next valid header, and reports every
byte outside of members, padding and the end-of-archive marker as a `Fault`. It raises nothing: the caller
decides which faults matter.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Literal, TypeAlias

FaultKind: TypeAlias = Literal[
    "empty", "damaged_header", "truncated", "no_end", "repeated_member", "scattered_key", "unsorted"
]
BLOCK_BYTES = 512
_END_BYTES = 2 * BLOCK_BYTES  # the end-of-archive marker: two blocks of zeros
# Key and suffix fit into the 100 bytes of a plain header. Readers ignore names that begin with `__`. An id
# with the form of a hashed key could be the key of another id.
_SAFE_KEY = re.compile(r"(?!__)(?!x[0-9a-f]{24}$)[A-Za-z0-9_-]{1,90}")
_PHOTO_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "image")


@dataclass(frozen=True)
class Member:
    """A file in a tar: its content has `num_bytes` bytes and starts at byte `offset` of the tar."""

    name: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Fault:
    """A fault of a tar at a byte offset; `key` names the affected sample, if there is one."""

    kind: FaultKind
    offset: int
    detail: str
    key: str = ""


@dataclass(frozen=True)
class Sample:
    """The members of one key: suffix (lower case, without the dot) -> member."""

    key: str
    members: Mapping[str, Member]

    def photo(self) -> Member | None:
        """The member with the photo, in any format; None if there is none."""
        return next((self.members[suffix] for suffix in _PHOTO_SUFFIXES if suffix in self.members), None)


def scan(stream: IO[bytes]) -> tuple[list[Member], list[Fault]]:
    """All complete members of a readable, seekable tar in file order, and the faults between them.

    A member whose content is cut off is reported as a fault only. Reads headers, not contents.
    """
    num_bytes = stream.seek(0, 2)
    if num_bytes == 0:
        return [], [Fault("empty", 0, "the file is empty")]
    members: list[Member] = []
    faults: list[Fault] = []
    position = 0  # where the next header should be
    for info in _headers(stream, num_bytes):
        start = info.offset
        if start > position:
            faults += _check_gap(stream, position, start)
        position = info.offset_data + _padded(info.size)
        if info.offset_data + info.size > num_bytes:
            present = num_bytes - info.offset_data
            detail = f"'{info.name}' is cut off after {present} of {info.size} bytes"
            return members, [*faults, Fault("truncated", start, detail, split_name(info.name)[0])]
        if info.isreg():
            members.append(Member(info.name, info.offset_data, info.size))
    return members, [*faults, *_check_end(stream, position, num_bytes)]


def group_samples(members: Iterable[Member]) -> tuple[list[Sample], list[Fault]]:
    """Members grouped into samples by key, as WebDataset does, and the faults of the grouping.

    A key that appears again after another key, a repeated suffix and keys out of order are faults; of
    repeated members the first one is used. Members whose names begin with `__` are metadata and are ignored.
    """
    by_key: dict[str, dict[str, Member]] = {}
    faults: list[Fault] = []
    previous = ""
    for member in members:
        key, suffix = split_name(member.name)
        if key.rpartition("/")[2].startswith("__") or not suffix:
            continue
        if key != previous and key in by_key:
            detail = f"'{member.name}' is separated from the other members of its sample"
            faults.append(Fault("scattered_key", member.offset, detail, key))
        elif key < previous:
            faults.append(Fault("unsorted", member.offset, f"'{key}' comes after '{previous}'", key))
        if key in by_key and suffix in by_key[key]:
            faults.append(Fault("repeated_member", member.offset, f"'{member.name}' is repeated", key))
        else:
            by_key.setdefault(key, {})[suffix] = member
        previous = key
    return [Sample(key, parts) for key, parts in by_key.items()], faults


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member's name, by WebDataset's rule: `a/b.c.JPG` -> (`a/b`, `c.jpg`)."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def key_of(item_id: str) -> str:
    """The sample key of an item: its id if that is a safe file name, else a hash of the id."""
    if _SAFE_KEY.fullmatch(item_id):
        return item_id
    return "x" + hashlib.sha256(item_id.encode()).hexdigest()[:24]


def _headers(stream: IO[bytes], num_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Every valid header, including those after damaged blocks."""
    stream.seek(0)
    try:
        # With `ignore_zeros`, tarfile tries block after block until it finds the next header.
        tar = tarfile.TarFile(fileobj=stream, mode="r", ignore_zeros=True)
    except tarfile.ReadError:
        return  # no valid header in the file; `_check_end` reports it
    while True:
        try:
            info = tar.next()
        except tarfile.ReadError:  # an extended header without its member, or the end of the file
            tar.offset += BLOCK_BYTES
            if tar.offset >= num_bytes:
                return
            continue
        if info is None:
            return
        tar.members = []  # type: ignore[attr-defined]  # tarfile collects all headers: unknown to typeshed
        yield info


def _check_gap(stream: IO[bytes], start: int, end: int) -> list[Fault]:
    """Faults between two members; zeros are valid: the end of a tar to which another one was appended."""
    if _is_zero(stream, start, end):
        return []
    return [Fault("damaged_header", start, f"{end - start} bytes belong to no member")]


def _check_end(stream: IO[bytes], start: int, num_bytes: int) -> list[Fault]:
    """Faults after the last member; valid are two or more blocks of zeros."""
    if start > num_bytes:
        return [Fault("no_end", num_bytes, "the file ends inside the padding of its last member")]
    if not _is_zero(stream, start, num_bytes):
        return [Fault("damaged_header", start, f"{num_bytes - start} bytes belong to no member")]
    if num_bytes - start < _END_BYTES:
        return [Fault("no_end", start, "the end-of-archive marker is missing")]
    return []


def _is_zero(stream: IO[bytes], start: int, end: int) -> bool:
    stream.seek(start)
    while start < end:
        chunk = stream.read(min(end - start, 1 << 20))
        if not chunk or any(chunk):
            return False
        start += len(chunk)
    return True


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
