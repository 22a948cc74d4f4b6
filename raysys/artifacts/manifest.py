"""The five artifacts: immutable directories between stages, each opened and checked by its manifest.

`manifest.json` is written last and atomically: a directory without one does not exist. A manifest
carries two hashes. The *spec_hash* says what was asked for (kind, configuration section, fingerprints of
the inputs): an artifact whose spec_hash is the one wanted is up to date. The *fingerprint* says what came
out (the hashes of its files): it is what children record, so a rebuild that gives the same bytes
disturbs nothing downstream.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict

import raysys
from raysys import storage
from raysys.errors import DamagedData, InputError, MissingArtifact, SpaceMismatch

MANIFEST = "manifest.json"
_SPEC_HASH_IN_PROGRESS = ".spec_hash"
_FORMAT = 3  # raise it when a stage's output changes its layout: older artifacts are then rebuilt


class FileEntry(BaseModel):
    """A file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class InputEntry(BaseModel):
    """What an artifact was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    fingerprint: str


class Manifest(BaseModel):
    """What every artifact says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    made_by: ClassVar[str] = "its stage"

    kind: str
    format: int = _FORMAT
    spec_hash: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, InputEntry]
    files: dict[str, FileEntry]
    num_items: int
    code_version: str
    created_at: str
    seconds: float


class CatalogManifest(Manifest):
    """A drawn catalogue: the input that raysys makes itself when there is no other."""

    kind: str = "Catalog"
    made_by: ClassVar[str] = "raysys pack"


class ShardEntry(BaseModel):
    """A tar of a ShardSet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_items: int
    bytes: int
    sha256: str


class InheritedShard(BaseModel):
    """A tar of an earlier ShardSet that a later one still uses, less what its tombstones name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    num_items: int
    num_live: int
    bytes: int
    sha256: str


class ShardSetManifest(Manifest):
    """WebDataset tars of one split; `num_items` counts its own and the live ones of inherited shards."""

    kind: str = "ShardSet"
    made_by: ClassVar[str] = "raysys pack"

    split: str
    shards: list[ShardEntry]
    inherited: list[InheritedShard] = []
    num_tombstones: int = 0
    item_schema: dict[str, str]
    num_rows: int
    num_refused: int
    refused_by_reason: dict[str, int]
    num_split_groups: int = 0
    """Groups of the whole catalogue that lie in more than one split; none when groups decide it."""


class EncoderBundleManifest(Manifest):
    """A checkpoint with its preprocessing and, if any, its projection."""

    kind: str = "EncoderBundle"
    made_by: ClassVar[str] = "raysys train"

    space_id: str
    dimensions: int
    parent_space_id: str | None
    training_run: str | None
    text: dict[str, Any]
    interpolation: dict[str, Any] | None = None
    """How the weights were chosen between two others; no file, for the same weights are the same bundle."""


class EmbeddingSetManifest(Manifest):
    """The catalogue as vectors, in Parquet."""

    kind: str = "EmbeddingSet"
    made_by: ClassVar[str] = "raysys embed"

    space_id: str
    dimensions: int
    num_refused: int = 0


class IndexBundleManifest(Manifest):
    """A FAISS index with its row-to-item map."""

    kind: str = "IndexBundle"
    made_by: ClassVar[str] = "raysys index"

    space_id: str
    dimensions: int
    index_kind: str
    recall: dict[str, float]
    last_change: int


class ReportManifest(Manifest):
    """`report.json` and `report.html`."""

    kind: str = "Report"
    made_by: ClassVar[str] = "raysys evaluate"

    seed: int
    command: str


AnyManifest = TypeVar("AnyManifest", bound=Manifest)


@dataclass(frozen=True)
class ArtifactSpec:
    """An artifact that is wanted: where, of what kind, from what."""

    uri: str
    manifest: type[Manifest]
    config: Mapping[str, Any]
    inputs: Mapping[str, InputEntry]

    @property
    def spec_hash(self) -> str:
        """The hash of what is asked for."""
        return spec_hash_of(self.manifest, self.config, self.inputs)


def spec_hash_of(
    manifest: type[Manifest], config: Mapping[str, Any], inputs: Mapping[str, InputEntry]
) -> str:
    """The hash of what is asked for; URIs do not count, contents do."""
    wanted = {
        "kind": manifest.model_fields["kind"].default,
        "format": _FORMAT,
        "config": config,
        "inputs": {name: entry.fingerprint for name, entry in inputs.items()},
    }
    return _hash(wanted)


def open_artifact(uri: str, manifest: type[AnyManifest]) -> AnyManifest:
    """The manifest of an artifact that must be there, checked against the sizes of its files.

    Raises: MissingError if there is none, InputError if it is another kind, DamagedData if files do not fit.
    """
    found = _read(uri, manifest)
    if found is None:
        what = manifest.model_fields["kind"].default
        why = f"no {MANIFEST}"
        if storage.exists(path := storage.join(uri, MANIFEST)):
            layout = json.loads(storage.read_bytes(path)).get("format")
            why = f"{MANIFEST} has layout {layout}, {_FORMAT} is read"
        raise MissingArtifact(f"{uri}: no {what} here ({why}); make it with `{manifest.made_by}`")
    on_disk = storage.list_files(uri)
    for name, entry in found.files.items():
        if on_disk.get(name) != entry.bytes:
            got = f"{on_disk[name]} bytes" if name in on_disk else "nothing"
            raise DamagedData(f"{uri}: {name} should have {entry.bytes} bytes, found {got}; rebuild it")
    return found


def find_up_to_date(spec: ArtifactSpec) -> Manifest | None:
    """The manifest if the artifact is complete and made by this very spec_hash, else None."""
    found = _read(spec.uri, spec.manifest)
    if found is None or found.spec_hash != spec.spec_hash:
        return None
    return open_artifact(spec.uri, spec.manifest)


def begin(spec: ArtifactSpec) -> None:
    """Prepare a directory for being made. What an interrupted attempt at the same spec_hash left stays."""
    marker = storage.join(spec.uri, _SPEC_HASH_IN_PROGRESS)
    if storage.exists(marker) and storage.read_bytes(marker).decode() == spec.spec_hash:
        return
    storage.delete(storage.join(spec.uri, MANIFEST))  # first: from here on the directory does not exist
    storage.delete(spec.uri)
    storage.write_bytes(marker, spec.spec_hash.encode())


def publish(uri: str, manifest: AnyManifest) -> AnyManifest:
    """Write `manifest.json`, which makes the directory an artifact."""
    storage.write_bytes(storage.join(uri, MANIFEST), manifest.model_dump_json(indent=2).encode())
    storage.delete(storage.join(uri, _SPEC_HASH_IN_PROGRESS))
    return manifest


def describe_files(uri: str, only: Iterable[str] | None = None) -> dict[str, FileEntry]:
    """Size and SHA-256 of the files of a directory that is about to be published."""
    names = storage.list_files(uri) if only is None else only
    return {name: _describe(storage.join(uri, name)) for name in names if name != MANIFEST}


def common_fields(
    spec: ArtifactSpec, files: dict[str, FileEntry], num_items: int, seconds: float
) -> dict[str, Any]:
    """The fields that every manifest has, for `SomeManifest(**common_fields(..), ..)`."""
    return {
        "spec_hash": spec.spec_hash,
        "fingerprint": _hash({name: entry.sha256 for name, entry in files.items()}),
        "config": dict(spec.config),
        "inputs": dict(spec.inputs),
        "files": files,
        "num_items": num_items,
        "code_version": code_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }


def as_input(uri: str, manifest: type[Manifest]) -> InputEntry:
    """How a child records the artifact at `uri`, which must be there."""
    return InputEntry(uri=uri, fingerprint=open_artifact(uri, manifest).fingerprint)


def require_same_space(first: str, first_space_id: str, second: str, second_space_id: str) -> None:
    """Refuse to compare vectors of different embedding spaces (law 1).

    Raises: SpaceMismatch naming both sides.
    """
    if first_space_id != second_space_id:
        raise SpaceMismatch(
            f"{first} is of embedding space {first_space_id[:12]}, {second} of {second_space_id[:12]}: "
            "their vectors cannot be compared; embed and index again with the encoder that is used"
        )


def canonical_json(value: Any) -> str:
    """JSON that is equal for equal values: keys sorted, text as it is."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


@functools.cache
def code_version() -> str:
    """The version of raysys, with the commit when it runs from a checkout."""
    folder = Path(__file__).parent
    if not (folder.parent / ".git").exists():
        return raysys.__version__
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{raysys.__version__}+{commit}" if commit else raysys.__version__


def _describe(uri: str) -> FileEntry:
    size, sha256 = storage.sha256_of(uri)
    return FileEntry(bytes=size, sha256=sha256)


def _read(uri: str, manifest: type[AnyManifest]) -> AnyManifest | None:
    path = storage.join(uri, MANIFEST)
    if not storage.exists(path):
        return None
    wanted = manifest.model_fields["kind"].default
    try:
        content = json.loads(storage.read_bytes(path))
        if content.get("kind") != wanted:
            raise InputError(f"{uri}: a {wanted} is needed, found a {content.get('kind')}; check the path")
        if content.get("format") != _FORMAT:
            return None
        return manifest.model_validate(content)
    except (ValueError, AttributeError, pydantic.ValidationError) as error:
        raise DamagedData(
            f"{path}: not a manifest ({' '.join(str(error).split())[:120]}); rebuild it"
        ) from error


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
