"""Open a shard as a plain tar: as it is, or decompressed if it is a gzip, bzip2 or xz file.

The name of the file does not matter. Python 3.11 cannot decompress zstd: such a file is a fault of its own.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from raysys import storage
from raysys.shards.tar import BLOCK_BYTES, Fault

_STEP_BYTES = 64  # of compressed data; what a damaged step decompresses to is lost


class _Decoder(Protocol):
    """Decompresses one stream; a file may have several, one behind the other."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True)
class _Compression:
    name: str
    magic: re.Pattern[bytes]  # the name of a member, the start of a plain tar, does not match it
    new_decoder: Callable[[], _Decoder] | None  # None: Python cannot decompress it


_COMPRESSIONS = (
    _Compression("gzip", re.compile(rb"\x1f\x8b"), lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)),
    _Compression("bzip2", re.compile(rb"BZh[1-9]1AY&SY"), bz2.BZ2Decompressor),
    _Compression("xz", re.compile(rb"\xfd7zXZ\0"), lzma.LZMADecompressor),
    _Compression("zstd", re.compile(rb"\x28\xb5\x2f\xfd"), None),
)
MAGIC_BYTES = 10  # the longest of them


@dataclass(frozen=True)
class OpenTar:
    """A tar and the file that it is stored in, with the faults of the compression."""

    path: Path  # of the stored file
    stream: IO[bytes]  # the tar
    faults: tuple[Fault, ...] = ()


@contextlib.contextmanager
def open_tar(uri: str) -> Iterator[OpenTar]:
    """Open a tar or a compressed file of one, which is decompressed to a temporary file.

    Raises: MissingError if there is no such file.
    """
    with storage.readable_file(uri) as path, path.open("rb") as stored:
        compression = _compression_of(stored.read(MAGIC_BYTES))
        stored.seek(0)
        if compression is None:
            yield OpenTar(path, stored)
        elif compression.new_decoder is None:
            detail = f"compressed with {compression.name}, which is not read; unpack it with `zstd -d`"
            yield OpenTar(path, _empty_tar(), (Fault("unsupported_compression", 0, detail),))
        else:
            with tempfile.TemporaryFile() as plain:
                damage = _decompress(stored, plain, compression.new_decoder)
                detail = f"compressed with {compression.name}; offsets are those of the decompressed tar"
                yield OpenTar(path, plain, (Fault("compressed", 0, detail), *damage))


def compression_name(start: bytes) -> str | None:
    """How a file with these first `MAGIC_BYTES` is compressed; None if it is not."""
    compression = _compression_of(start)
    return compression.name if compression else None


def _compression_of(start: bytes) -> _Compression | None:
    return next((known for known in _COMPRESSIONS if known.magic.match(start)), None)


def _empty_tar() -> IO[bytes]:
    return io.BytesIO(bytes(2 * BLOCK_BYTES))


def _decompress(source: IO[bytes], target: IO[bytes], new_decoder: Callable[[], _Decoder]) -> list[Fault]:
    """Decompress the streams of a file up to the first damage, which is returned."""
    decoder = new_decoder()
    while data := source.read(_STEP_BYTES):
        start = source.tell() - len(data)
        while data:
            if decoder.eof:
                data = data.lstrip(b"\0")  # padding between streams
                if not data:
                    break
                decoder = new_decoder()
            try:
                plain = decoder.decompress(data)
            except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:  # the last two: of bz2
                return [Fault("damaged_compression", start, f"cannot be decompressed further ({error})")]
            target.write(plain)
            data = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        return [Fault("damaged_compression", source.tell(), "the compressed file is cut off")]
    return []
