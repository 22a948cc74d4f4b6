"""Read a tar as members: where the content of every file lies, and every fault of the tar.

`tarfile` stops without an error at a damaged header, at a block of zeros and at a cut between two members.
This module continues at the next valid header (aligned to 512 bytes, with a correct checksum), also inside
the content of a member that is cut off, and reports every byte outside of members, padding and the
end-of-archive marker as a `Fault`. It raises nothing: the caller decides which faults matter.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Literal, TypeAlias

import numpy as np

from raysys.shards.links import Entry, resolve_links
from raysys.shards.names import is_ignored, split_name

FaultKind: TypeAlias = Literal[
    "empty",
    "compressed",
    "damaged_compression",
    "unsupported_compression",
    "damaged_header",
    "early_end",
    "truncated",
    "no_end",
    "no_sample",
    "link",
    "broken_link",
    "not_a_file",
    "ignored_member",
    "dotted_name",
    "repeated_member",
    "scattered_key",
    "unsorted",
]
BLOCK_BYTES = 512
_END_BYTES = 2 * BLOCK_BYTES  # the end-of-archive marker: two blocks of zeros
# Key and suffix fit into the 100 bytes of a plain header. Readers ignore names that begin with `__`. An id
# with the form of a hashed key could be the key of another id.
_SAFE_KEY = re.compile(r"(?!__)(?!x[0-9a-f]{24}$)[A-Za-z0-9_-]{1,90}")
_CHUNK_BYTES = 1 << 20
_CHECKSUM = slice(148, 156)  # of a header: octal digits, spaces and NUL
_IN_CHECKSUM = np.isin(np.arange(256), list(b"01234567 \0"))
# What `tarfile` raises for a block that is no header, and for extended headers with damaged content.
_NO_HEADER = (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Member:
    """A file in a tar: its content has `num_bytes` bytes and starts at byte `offset` of the tar."""

    name: str
    offset: int
    num_bytes: int


IsWhole: TypeAlias = Callable[[Member], bool | None]  # whether the content is undamaged; None: unknown
OnMember: TypeAlias = Callable[[Member], None]


@dataclass(frozen=True)
class Fault:
    """A fault of a tar at a byte offset; `key` names the affected sample, if there is one."""

    kind: FaultKind
    offset: int
    detail: str
    key: str = ""


def scan(
    stream: IO[bytes], is_whole: IsWhole | None = None, on_member: OnMember | None = None
) -> tuple[list[Member], list[Fault]]:
    """All complete members of a readable, seekable tar in file order, and the faults between them.

    A member whose content is cut off is reported as a fault only. Links have the content of their target.
    Reads headers, not contents, unless there is damage. `is_whole` decides whether headers inside the content
    of a member are content or members; without it, they are members if no header follows the content.
    `on_member` is called with every file behind its header, while a stream that reads ahead has its first
    bytes; the file may turn out to be cut off.
    """
    num_bytes = stream.seek(0, io.SEEK_END)
    if num_bytes == 0:
        return [], [Fault("empty", 0, "the file is empty")]
    entries, faults = _Walk(stream, num_bytes, is_whole, on_member).run()
    resolved = resolve_links(entries)
    members = [Member(name, target.offset, target.num_bytes) for name, target in resolved.files]
    faults += [
        Fault(kind, entry.header, detail, split_name(entry.name)[0])
        for kind, entry, detail in resolved.problems
        if not is_ignored(entry.name)
    ]
    return members, sorted(faults, key=lambda fault: fault.offset)


def key_of(item_id: str) -> str:
    """The sample key of an item: its id if that is a safe file name, else a hash of the id."""
    if _SAFE_KEY.fullmatch(item_id):
        return item_id
    return "x" + hashlib.sha256(item_id.encode()).hexdigest()[:24]


class _Walk:
    """One pass from header to header."""

    def __init__(
        self, stream: IO[bytes], num_bytes: int, is_whole: IsWhole | None, on_member: OnMember | None
    ) -> None:
        self._stream, self._num_bytes, self._is_whole = stream, num_bytes, is_whole
        self._on_member = on_member
        # An empty archive, so that the constructor does not read: `_read_header` reads where it wants to.
        self._tar = tarfile.TarFile(fileobj=io.BytesIO(bytes(BLOCK_BYTES)), encoding="utf-8")
        self._tar.fileobj = stream
        self._entries: list[Entry] = []
        self._faults: list[Fault] = []

    def run(self) -> tuple[list[Entry], list[Fault]]:
        """The entries of all valid headers, except files that are cut off, and the faults between them."""
        position: int | None = 0  # where the next header should be; None behind a cut
        header = self._read_header(0) or self._next_header(0)
        while header is not None:
            info, end = header
            self._check_gap(position, info.offset)
            entry = _entry_of(info)
            if entry.offset + entry.num_bytes > self._num_bytes:
                self._add_cut(entry, self._num_bytes)
                position, header = None, self._next_header(entry.offset)
                continue
            if not info.isdir():
                self._entries.append(entry)
            if self._on_member and entry.is_file and entry.link is None:
                self._on_member(Member(entry.name, entry.offset, entry.num_bytes))
            position, header = end, self._read_header(end)
            if not self._is_complete(entry, end, header is not None):
                header = self._next_header(entry.offset)
            elif header is None:
                header = self._next_header(end)
        if position is not None:
            self._faults += _check_end(self._stream, position, self._num_bytes)
        return self._entries, self._faults

    def _check_gap(self, position: int | None, start: int) -> None:
        """Report what is between the end of a member and the next header, which may lie before that end."""
        if position is None or start == position:
            return
        if start < position:
            self._add_cut(self._entries.pop(), start)
        elif _is_zero(self._stream, position, start):
            detail = f"{start - position} zeros before further members: other readers stop here"
            self._faults.append(Fault("early_end", position, detail))
        else:
            detail = f"{start - position} bytes belong to no member"
            self._faults.append(Fault("damaged_header", position, detail))

    def _add_cut(self, entry: Entry, end: int) -> None:
        detail = f"'{entry.name}' is cut off after {end - entry.offset} of {entry.num_bytes} bytes"
        self._faults.append(Fault("truncated", entry.header, detail, split_name(entry.name)[0]))

    def _is_complete(self, entry: Entry, end: int, has_next: bool) -> bool:
        """Whether no other members are inside the content of this one.

        They are if a tar was cut off and another one was appended. The appended headers are then read as
        content, and at the stated end of the content there is usually no header.
        """
        if (
            not entry.num_bytes
            or (has_next and self._is_whole is None)
            or entry.name.lower().endswith(".tar")
        ):
            return True
        if self._next_header(entry.offset, end) is None:
            return True
        # Behind the content are zeros up to the next block, and then a header or more zeros.
        if not _is_zero(self._stream, entry.offset + entry.num_bytes, end):
            return False
        member = Member(entry.name, entry.offset, entry.num_bytes)
        is_whole = None if self._is_whole is None else self._is_whole(member)
        if is_whole is None:
            return has_next or _is_zero(self._stream, end, end + BLOCK_BYTES)
        return is_whole

    def _next_header(self, start: int, stop: int | None = None) -> tuple[tarfile.TarInfo, int] | None:
        """The first valid header in the blocks from `start` on, and the end of its member."""
        candidates = _header_candidates(self._stream, start, self._num_bytes if stop is None else stop)
        return next((header for offset in candidates if (header := self._read_header(offset))), None)

    def _read_header(self, offset: int) -> tuple[tarfile.TarInfo, int] | None:
        """The header at `offset` with its extended headers, and the end of its member; None if invalid."""
        self._stream.seek(offset)
        try:
            info = tarfile.TarInfo.fromtarfile(self._tar)
        except _NO_HEADER:
            return None
        end = self._tar.offset
        return (info, end) if info.size >= 0 and end > offset else None  # a size may be a negative number


def _entry_of(info: tarfile.TarInfo) -> Entry:
    if info.isreg() and not info.issparse():
        return Entry(info.name, info.offset, info.offset_data, info.size)
    if info.islnk() or info.issym():
        return Entry(info.name, info.offset, info.offset_data, 0, info.linkname, info.issym())
    return Entry(info.name, info.offset, info.offset_data, 0, is_file=False)


def _header_candidates(stream: IO[bytes], start: int, stop: int) -> Iterator[int]:
    """Offsets of blocks that may be headers, by the characters of their checksum."""
    while start < stop:
        stream.seek(start)
        chunk = stream.read(min(_CHUNK_BYTES, stop - start))
        num_blocks = len(chunk) // BLOCK_BYTES
        blocks = np.frombuffer(chunk, np.uint8, num_blocks * BLOCK_BYTES).reshape(-1, BLOCK_BYTES)
        is_candidate = _IN_CHECKSUM[blocks[:, _CHECKSUM]].all(axis=1) & blocks.any(axis=1)
        for number in np.flatnonzero(is_candidate):
            yield start + int(number) * BLOCK_BYTES
        start += _CHUNK_BYTES


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
    """Whether all bytes from `start` to `end`, or to the end of the file, are zeros."""
    stream.seek(start)
    while start < end and (chunk := stream.read(min(end - start, _CHUNK_BYTES))):
        if any(chunk):
            return False
        start += len(chunk)
    return True
