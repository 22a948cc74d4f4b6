"""A WebDataset tar as samples: where every member lies, and what is wrong with it.

`tarfile` ends quietly at a damaged header, at a missing end and at a cut between two members. Here the
reading goes on behind the damage at the next header that holds, and every byte that is no member, no
padding and no end is told as a `Fault`. Nothing is raised: the caller knows what may be wrong.
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
_END_BYTES = 2 * BLOCK_BYTES  # a tar ends with two blocks of zeros
_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # with its suffix within the 100 bytes of a plain header
PHOTO_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "image")


@dataclass(frozen=True)
class Member:
    """A file in a tar, whose content is `num_bytes` from `offset` on (bytes from the start of the tar)."""

    name: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Fault:
    """Something wrong with a tar, at a byte offset; `key` names the sample, if one is concerned."""

    kind: FaultKind
    offset: int
    detail: str
    key: str = ""


@dataclass(frozen=True)
class Sample:
    """Neighbouring members of one key: suffix (lower case, without the dot) -> member."""

    key: str
    members: Mapping[str, Member]

    def photo(self) -> Member | None:
        """The member that holds the photo, whatever its format."""
        return next((self.members[suffix] for suffix in PHOTO_SUFFIXES if suffix in self.members), None)


def scan(stream: IO[bytes]) -> tuple[list[Member], list[Fault]]:
    """All members of a tar that is open for reading and seeking, in order, and what is wrong between them.

    A member whose content is cut off is no member. Reads headers only.
    """
    num_bytes = stream.seek(0, 2)
    if num_bytes == 0:
        return [], [Fault("empty", 0, "the file has no bytes")]
    members: list[Member] = []
    faults: list[Fault] = []
    position = 0  # where the next header should be
    for info in _infos(stream, num_bytes):
        start = info.offset
        if start > position:
            faults += _gap(stream, position, start)
        position = info.offset_data + _padded(info.size)
        if info.offset_data + info.size > num_bytes:
            have = num_bytes - info.offset_data
            detail = f"'{info.name}' has {have} of its {info.size} bytes, then the file ends"
            return members, [*faults, Fault("truncated", start, detail, split_name(info.name)[0])]
        if info.isreg():
            members.append(Member(info.name, info.offset_data, info.size))
    return members, [*faults, *_ending(stream, position, num_bytes)]


def samples(members: Iterable[Member]) -> tuple[list[Sample], list[Fault]]:
    """Members grouped by key as WebDataset does: neighbours of one key are a sample.

    A key that comes back later, a suffix that is there twice and keys out of order are told; what came
    first stays. Members that begin with `__` are notes to readers and are left out.
    """
    found: dict[str, dict[str, Member]] = {}
    faults: list[Fault] = []
    last = ""
    for member in members:
        key, suffix = split_name(member.name)
        if key.rpartition("/")[2].startswith("__") or not suffix:
            continue
        if key != last and key in found:
            faults.append(
                Fault("scattered_key", member.offset, f"'{member.name}' is apart from its sample", key)
            )
        elif key < last:
            faults.append(Fault("unsorted", member.offset, f"'{key}' comes after '{last}'", key))
        if key in found and suffix in found[key]:
            faults.append(Fault("repeated_member", member.offset, f"'{member.name}' is there twice", key))
        else:
            found.setdefault(key, {})[suffix] = member
        last = key
    return [Sample(key, parts) for key, parts in found.items()], faults


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member: `a/b.c.JPG` -> (`a/b`, `c.jpg`), as WebDataset has it."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def key_of(item_id: str) -> str:
    """The key of an item: its id where a member's name can hold that, else a hash of it."""
    if _SAFE_KEY.fullmatch(item_id):
        return item_id
    return "x" + hashlib.sha256(item_id.encode()).hexdigest()[:24]


def _infos(stream: IO[bytes], num_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Every header that holds, also behind blocks that are none."""
    stream.seek(0)
    try:
        # `ignore_zeros` makes tarfile try block after block until it finds a header again.
        tar = tarfile.TarFile(fileobj=stream, mode="r", ignore_zeros=True)
    except tarfile.ReadError:
        return  # not one header in the whole file: the gap tells
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
        tar.members = []  # type: ignore[attr-defined]  # the headers it saw: unknown to typeshed
        yield info


def _gap(stream: IO[bytes], start: int, end: int) -> list[Fault]:
    """What stands between two members; zeros are the end of a tar that another was appended to."""
    if _is_zero(stream, start, end):
        return []
    return [Fault("damaged_header", start, f"{end - start} bytes that are no member")]


def _ending(stream: IO[bytes], start: int, num_bytes: int) -> list[Fault]:
    """What stands behind the last member: two blocks of zeros at least, and nothing else."""
    if start > num_bytes:
        return [Fault("no_end", num_bytes, "the file ends within the padding of its last member")]
    if not _is_zero(stream, start, num_bytes):
        return [Fault("damaged_header", start, f"{num_bytes - start} bytes that are no member")]
    if num_bytes - start < _END_BYTES:
        return [Fault("no_end", start, "the file ends without the end that a tar has")]
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
