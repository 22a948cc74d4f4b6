"""Open a shard as a plain tar: as it is, or decompressed if it is a gzip file, whatever its name."""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from raysys import storage
from raysys.shards.tar import Fault

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # of zlib: a gzip header and trailer
_STEP_BYTES = 64  # of compressed data; what a damaged step decompresses to is lost


@dataclass(frozen=True)
class OpenTar:
    """A tar and the file that it is stored in, with the faults of the compression."""

    path: Path  # of the stored file
    stream: IO[bytes]  # the tar
    faults: tuple[Fault, ...] = ()


@contextlib.contextmanager
def open_tar(uri: str) -> Iterator[OpenTar]:
    """Open a tar or a gzip file of one; a gzip file is decompressed to a temporary file.

    Raises: MissingError if there is no such file.
    """
    with storage.readable_file(uri) as path, path.open("rb") as stored:
        if stored.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
            yield OpenTar(path, stored)
            return
        stored.seek(0)
        with tempfile.TemporaryFile() as plain:
            damage = _decompress(stored, plain)
            detail = "compressed with gzip; offsets are those of the decompressed tar"
            yield OpenTar(path, plain, (Fault("gzip", 0, detail), *damage))


def _decompress(source: IO[bytes], target: IO[bytes]) -> list[Fault]:
    """Decompress the members of a gzip file up to the first damage, which is returned."""
    decoder = zlib.decompressobj(_GZIP_WINDOW)
    while data := source.read(_STEP_BYTES):
        try:
            target.write(decoder.decompress(data))
            while decoder.eof and (rest := decoder.unused_data.lstrip(b"\0")):
                decoder = zlib.decompressobj(_GZIP_WINDOW)
                target.write(decoder.decompress(rest))
        except zlib.error as error:
            return [
                Fault("damaged_gzip", source.tell() - len(data), f"cannot be decompressed further ({error})")
            ]
    if not decoder.eof:
        return [Fault("damaged_gzip", source.tell(), "the gzip file is cut off")]
    return []
