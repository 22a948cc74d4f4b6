"""The vectors of an earlier EmbeddingSet, found by content hash: its photos are not decoded again.

The driver writes a table once: 16 bytes of each content hash, and the file and the row of its vector. A
decoder maps the table into its memory, which the processes of a machine share, and reads a file of vectors
when the first of its items arrives. So a process holds 24 bytes for each item of the earlier set, and few
vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int32
from numpy import ndarray

from raysys import storage
from raysys.artifacts import EmbeddingSetManifest, files_uri, intact_files, open_artifact
from raysys.artifacts.directory import read_manifest
from raysys.artifacts.embedding_set import read_part, vector_files, vectors_of
from raysys.artifacts.intact import damage_named
from raysys.columns import CONTENT_HASH
from raysys.parallel import map_in_threads

_HASH_BYTES = 16  # of the 32 of a content hash; the other half is compared when the vector is read
_CACHED_FILES = 16  # 20 MB of 400 vectors of 768 dimensions each
_FILES_AT_ONCE = 16
_SCHEMA = pa.schema([("hash", pa.binary(_HASH_BYTES)), ("file", pa.int32()), ("row", pa.int32())])


@dataclass(frozen=True)
class EarlierVectors:
    """The URI and the fingerprint of the set, and the URI of the table of its content hashes."""

    uri: str
    fingerprint: str
    table_uri: str

    @classmethod
    def write(cls, uri: str, manifest: EmbeddingSetManifest, table_uri: str) -> EarlierVectors:
        """Write the table of the set at `uri`, without its damaged files.

        Raises: DamagedData for a file that cannot be read.
        """
        names, intact = vector_files(manifest), intact_files(uri, manifest)
        numbers = [number for number, name in enumerate(names) if name in intact]
        parts = [np.empty(0, f"S{_HASH_BYTES}")]
        parts += map_in_threads(
            lambda number: _hashes_in(uri, manifest, names[number]), numbers, _FILES_AT_ONCE
        )
        lengths = [len(part) for part in parts[1:]]
        hashes = np.concatenate(parts)
        order = np.argsort(hashes, kind="stable")
        files = np.repeat(np.array(numbers, np.int32), lengths)[order]
        rows = np.concatenate([np.arange(length, dtype=np.int32) for length in [0, *lengths]])[order]
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(_HASH_BYTES), len(hashes), [None, pa.py_buffer(hashes[order].tobytes())]
        )
        batch = pa.record_batch([column, pa.array(files), pa.array(rows)], schema=_SCHEMA)
        with storage.writable_file(table_uri) as path, pa.ipc.new_file(str(path), _SCHEMA) as writer:
            writer.write_batch(batch)
        return cls(uri, manifest.fingerprint, table_uri)

    def has(self, hashes: Sequence[str]) -> list[bool]:
        """Whether the set has a vector for each content hash."""
        return [place is not None for place in self._places(hashes)]

    def of(self, hashes: Sequence[str]) -> list[Float32[ndarray, " d"] | None]:
        """The vector for each content hash; None for content that the set does not have.

        Raises: DamagedData if a file of the set is damaged.
        """
        places = self._places(hashes)
        vectors: list[Float32[ndarray, " d"] | None] = [None] * len(hashes)
        # By file, so that each is read once for a block.
        for place, number in sorted((place, n) for n, place in enumerate(places) if place is not None):
            file_number, row = place
            file_hashes, file_vectors = _read_file(self.uri, self.fingerprint, file_number)
            if file_hashes[row] == hashes[number]:
                vectors[number] = file_vectors[row]
        return vectors

    def _places(self, hashes: Sequence[str]) -> list[tuple[int, int] | None]:
        """Number of the file and row of each content hash."""
        known, files, rows = _read_table(self.table_uri, self.fingerprint)
        wanted = _short(hashes)
        positions = np.searchsorted(known, wanted)
        return [
            (int(files[position]), int(rows[position]))
            if position < len(known) and known[position] == short
            else None
            for position, short in zip(positions, wanted, strict=True)
        ]


def _short(hashes: Sequence[str]) -> ndarray:
    """The first bytes of hashes in hex."""
    whole = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 2 * _HASH_BYTES)
    return np.ascontiguousarray(whole[:, :_HASH_BYTES]).view(f"S{_HASH_BYTES}").ravel()


def _hashes_in(uri: str, manifest: EmbeddingSetManifest, name: str) -> ndarray:
    file_uri = storage.join(files_uri(uri, manifest), name)
    with damage_named(uri, EmbeddingSetManifest, [name]), storage.open_input(file_uri) as stream:
        return _short(pq.read_table(stream, columns=[CONTENT_HASH]).column(CONTENT_HASH).to_pylist())


@functools.lru_cache(maxsize=2)
def _read_table(
    uri: str, _fingerprint: str
) -> tuple[ndarray, Int32[ndarray, " items"], Int32[ndarray, " items"]]:
    with storage.readable_file(uri) as path:
        table = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)  # stays mapped without its name
    hashes = np.frombuffer(table.column("hash").buffers()[1], f"S{_HASH_BYTES}")[: len(table)]
    return hashes, table.column("file").to_numpy(), table.column("row").to_numpy()


@functools.lru_cache(maxsize=_CACHED_FILES)
def _read_file(uri: str, _fingerprint: str, number: int) -> tuple[list[str], Float32[ndarray, "items d"]]:
    """Content hashes and vectors of a file, checked."""
    manifest = _manifest(uri, _fingerprint)
    table = read_part(uri, manifest, vector_files(manifest)[number])
    return table.column(CONTENT_HASH).to_pylist(), vectors_of(table)


@functools.lru_cache(maxsize=2)
def _manifest(uri: str, _fingerprint: str) -> EmbeddingSetManifest:
    manifest = read_manifest(uri, EmbeddingSetManifest)  # a damaged file elsewhere does not matter
    return manifest or open_artifact(uri, EmbeddingSetManifest)
