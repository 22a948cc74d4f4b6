"""The manifest of each kind of artifact, and the spec of an artifact that is to be made.

A manifest carries two hashes. The *spec hash* identifies the request: kind, configuration section and the
fingerprints of the inputs. An artifact whose spec hash equals the requested one is up to date. The
*fingerprint* identifies the result: a hash over the hashes of its files. Children record fingerprints, so a
rebuild that writes the same bytes invalidates nothing downstream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

FORMAT = 4  # of a kind without a number of its own; raise it when the layout of an artifact changes


class FileEntry(BaseModel):
    """A file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class InputEntry(BaseModel):
    """An input of an artifact. `uri` is for people; only `fingerprint` is compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    fingerprint: str


class Manifest(BaseModel):
    """The fields of every manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    made_by: ClassVar[str] = "its stage"

    kind: str
    format: int = FORMAT
    spec_hash: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, InputEntry]
    files: dict[str, FileEntry]
    folder: str = ""
    """The folder of the files, below the manifest; empty if they lie beside it (`files_uri`)."""
    num_items: int
    code_version: str
    created_at: str
    seconds: float


class CatalogManifest(Manifest):
    """A drawn catalogue, for configurations without a catalogue of their own."""

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
    """A tar in another folder: of a parent ShardSet, or of another tool. `items.parquet` lists its items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    num_items: int
    num_live: int
    """Items that belong to this ShardSet."""
    bytes: int
    sha256: str | None
    """None for a tar of another tool: its photos are known by their headers."""


class ShardSetManifest(Manifest):
    """WebDataset tars of one split; `num_items` counts its own items and the live inherited ones."""

    kind: str = "ShardSet"
    made_by: ClassVar[str] = "raysys pack"

    split: str
    shards: list[ShardEntry]
    inherited: list[InheritedShard] = []
    item_schema: dict[str, str]
    num_rows: int
    num_refused: int
    refused_by_reason: dict[str, int]
    num_split_groups: int = 0
    """Groups of the whole catalogue with items in more than one split; 0 when groups decide the split."""


class EncoderBundleManifest(Manifest):
    """A checkpoint with its preprocessing and an optional projection."""

    kind: str = "EncoderBundle"
    made_by: ClassVar[str] = "raysys train"

    space_id: str
    dimensions: int
    parent_space_id: str | None
    training_run: str | None
    text: dict[str, Any]
    interpolation: dict[str, Any] | None = None
    """The WiSE-FT curve and the chosen point. Not a file: equal weights make an equal bundle."""


class Throughput(BaseModel):
    """What the run that published an EmbeddingSet did, without the parts of a run that was interrupted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_photos: int
    """Embedded or carried over."""
    photos_per_s: float
    device_seconds: float
    """How long the encoders were held, together."""
    busy_fraction: float
    """The share of that time in which they computed."""
    cost_per_million: float | None
    """Of photos, at `embed.price_per_device_hour`."""


class Parity(BaseModel):
    """How far vectors of golden items in training and in the batch are from those of the service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: int
    tolerance: float
    largest: dict[str, float]
    """`batch` and `training` -> the largest distance, 1 - cosine."""
    worst_items: dict[str, str]
    """The same -> id of the item with that distance."""


class EmbeddingSetManifest(Manifest):
    """The catalogue as vectors, in Parquet."""

    kind: str = "EmbeddingSet"
    format: int = 5
    made_by: ClassVar[str] = "raysys embed"

    space_id: str
    dimensions: int
    num_refused: int = 0
    num_carried_over: int = 0
    """Items whose vectors an earlier set had, because neither photo nor title has changed."""
    num_removed: int = 0
    """Items of that set that are not in this one."""
    throughput: Throughput | None = None
    """None if no photo was left to embed when the set was published."""
    parity: Parity | None = None
    """None if it was not measured (`embed.parity_items`)."""


class IndexCandidate(BaseModel):
    """An index that `index.kind: auto` measured on a sample; memory and times are for the whole catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    factory: str
    search: dict[str, int]
    bytes_per_vector: float
    recall_at_10: float
    p50_ms: float
    p99_ms: float


class IndexBundleManifest(Manifest):
    """FAISS indexes, one or more files, and the item of each of their rows."""

    kind: str = "IndexBundle"
    format: int = 6
    made_by: ClassVar[str] = "raysys index"

    space_id: str
    dimensions: int
    index_kind: str
    factory: str = "Flat"
    """The FAISS factory string of every file."""
    search: dict[str, int] = {}
    """`nprobe`, `k_factor` or `ef_search` of a search."""
    recall: dict[str, float]
    latency_ms: dict[str, float] = {}
    """`p50` and `p99` of single searches on one thread of the machine that built it."""
    candidates: list[IndexCandidate] = []
    """What `index.kind: auto` measured, in order; the last one was built."""
    last_change: int
    """Number of the last catalogue change in the index; 0 after a build."""
    num_without_vector: int = 0
    """Items that were put up to that change without a vector of the space, and are not in the index."""
    max_exact_rows: int
    """If at most this many rows of a FAISS file pass a filter, they are searched exactly."""


class ReportManifest(Manifest):
    """`report.json` and `report.html`."""

    kind: str = "Report"
    made_by: ClassVar[str] = "raysys evaluate"

    seed: int
    command: str


class FrontierManifest(Manifest):
    """`frontier.json`, `frontier.md` and `frontier.png`."""

    kind: str = "Frontier"
    made_by: ClassVar[str] = "raysys index --frontier"

    seed: int
    command: str


AnyManifest = TypeVar("AnyManifest", bound=Manifest)


@dataclass(frozen=True)
class ArtifactSpec:
    """An artifact that a configuration requests: its URI, its kind, its settings and its inputs."""

    uri: str
    manifest: type[Manifest]
    config: Mapping[str, Any]
    inputs: Mapping[str, InputEntry]

    @property
    def spec_hash(self) -> str:
        """The hash of the request. The contents of inputs count, their URIs do not."""
        request = {
            "kind": self.manifest.model_fields["kind"].default,
            "format": self.manifest.model_fields["format"].default,
            "config": self.config,
            "inputs": {name: entry.fingerprint for name, entry in self.inputs.items()},
        }
        return hash_json(request)


def canonical_json(value: Any) -> str:
    """JSON that is equal for equal values: sorted keys, text not escaped."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def hash_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
