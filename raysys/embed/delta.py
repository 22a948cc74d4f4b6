"""Which earlier EmbeddingSet a new one takes vectors from, so that only new content is embedded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, require_same_space
from raysys.artifacts.directory import read_manifest
from raysys.artifacts.embedding_set import LEDGER
from raysys.columns import CONTENT_HASH, ITEM_ID
from raysys.config.schema import EmbedConfig
from raysys.errors import DamagedData, InputError
from raysys.stream.earlier_vectors import EarlierVectors

_TABLE = ".content_hashes.arrow"  # hidden: it is no file of the set, and is deleted when that is published


@dataclass(frozen=True)
class EarlierSet:
    """A published EmbeddingSet of the same space and precision."""

    uri: str
    manifest: EmbeddingSetManifest


@dataclass(frozen=True)
class Changes:
    """What a set has of an earlier one."""

    num_carried_over: int = 0
    num_removed: int = 0


def find_earlier(spec: ArtifactSpec, space_id: str, section: EmbedConfig) -> EarlierSet | None:
    """The set that `embed.reuse` stands for, if its vectors can be used in the space `space_id`.

    Raises: MissingError if a set that is named does not exist, SpaceMismatch or InputError if it has another
    space or precision. The published set is then not used, and that is no error.
    """
    if section.reuse == "none":
        return None
    if section.reuse == "published":
        return _published(spec, space_id, section.chosen_precision)
    uri = storage.absolute(section.reuse)
    manifest = artifacts.open_artifact(uri, EmbeddingSetManifest)
    require_same_space(f"embed.reuse: {uri}", manifest.space_id, "the encoder", space_id)
    if (precision := manifest.config.get("precision")) != section.chosen_precision:
        raise InputError(
            f"embed.reuse: {uri} was embedded in {precision}, embed.precision is {section.chosen_precision}; "
            "set one of them"
        )
    return EarlierSet(uri, manifest)


def open_vectors(earlier: EarlierSet, folder_uri: str) -> EarlierVectors:
    """The vectors of the set for the decoders of a new one in `folder_uri`."""
    return EarlierVectors.write(earlier.uri, earlier.manifest, storage.join(folder_uri, _TABLE))


def count_changes(vectors: EarlierVectors, earlier: EarlierSet, folder_uri: str) -> Changes:
    """Compare the parts in `folder_uri`, also those of an interrupted run, with the earlier set."""
    num_carried_over, ids = 0, pa.chunked_array([], pa.string())
    for table in _tables(folder_uri, storage.list_files(folder_uri), [ITEM_ID, CONTENT_HASH]):
        num_carried_over += sum(vectors.has(table.column(CONTENT_HASH).to_pylist()))
        ids = pa.chunked_array([*ids.chunks, *table.column(ITEM_ID).chunks])
    earlier_uri = artifacts.files_uri(earlier.uri, earlier.manifest)
    columns = [table.column(ITEM_ID) for table in _tables(earlier_uri, earlier.manifest.files, [ITEM_ID])]
    earlier_ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    is_removed = pc.invert(pc.is_in(earlier_ids, value_set=ids))
    return Changes(num_carried_over, pc.sum(is_removed).as_py() or 0)


def _published(spec: ArtifactSpec, space_id: str, precision: str) -> EarlierSet | None:
    try:
        manifest = read_manifest(spec.uri, EmbeddingSetManifest)
    except (DamagedData, InputError):
        return None
    if manifest is None or manifest.spec_hash == spec.spec_hash:  # the same set, damaged: it is repaired
        return None
    is_usable = manifest.space_id == space_id and manifest.config.get("precision") == precision
    return EarlierSet(spec.uri, manifest) if is_usable else None


def _tables(uri: str, names: Iterable[str], columns: list[str]) -> Iterator[pa.Table]:
    """Columns of the files of vectors that can be read."""
    for name in names:
        file_uri = storage.join(uri, name)
        if name.endswith(".parquet") and name != LEDGER and storage.exists(file_uri):
            with storage.open_input(file_uri) as stream:
                yield pq.read_table(stream, columns=columns)
