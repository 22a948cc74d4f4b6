"""Which encoder and index a service serves: exact versions of both, in a small file below `root`.

The service writes the file when it switches; replicas that start read it, and publishers keep the versions
that it names.
"""

from __future__ import annotations

import contextlib

import pydantic
from pydantic import BaseModel, ConfigDict

from raysys import storage
from raysys.artifacts.directory import open_artifact, read_manifest, require_same_space
from raysys.artifacts.layout import SERVED
from raysys.artifacts.manifest import EncoderBundleManifest, IndexBundleManifest, Manifest
from raysys.errors import DamagedData, InputError

_HEX_DIGITS = 12  # of a fingerprint, in the name of a version


class ServedPair(BaseModel):
    """An encoder and an index of one embedding space, each by the URI of its exact version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: int
    """Counts the switches of a service from 1; it never decreases."""
    encoder_uri: str | None
    """None for vectors of no EncoderBundle."""
    index_uri: str
    space_id: str
    index_version: str
    """The beginning of the index's fingerprint."""

    def is_same_as(self, other: ServedPair) -> bool:
        """Whether both are the same versions, whatever the generation."""
        return (self.encoder_uri, self.index_uri) == (other.encoder_uri, other.index_uri)


class Served(BaseModel):
    """The pair that a service serves, and the one that it served before the last switch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active: ServedPair
    previous: ServedPair | None = None


def read_served(uri: str) -> Served | None:
    """The content of the file; None without one. Raises: DamagedData."""
    if not storage.exists(uri):
        return None
    try:
        return Served.model_validate_json(storage.read_bytes(uri))
    except pydantic.ValidationError as error:
        raise DamagedData(
            f"{uri}: does not say what is served ({str(error).splitlines()[0]}); delete it: "
            "then the service serves what is published"
        ) from error


def write_served(uri: str, served: Served) -> None:
    """Replace the file, atomically and durably."""
    storage.write_bytes(uri, served.model_dump_json(indent=2).encode())


def newest_pair(uri: str, initial: ServedPair) -> ServedPair:
    """The active pair of the file at `uri`, or `initial` if that is newer or there is no file."""
    served = read_served(uri)
    return served.active if served and served.active.generation >= initial.generation else initial


def published_pair(encoder_uri: str | None, index_uri: str, generation: int) -> ServedPair:
    """The exact versions of what is published at both URIs.

    Raises: MissingArtifact, DamagedData as `open_artifact`; SpaceMismatch if the spaces differ.
    """
    encoder = None if encoder_uri is None else open_artifact(encoder_uri, EncoderBundleManifest)
    index = open_artifact(index_uri, IndexBundleManifest)
    if encoder is not None and encoder_uri is not None:
        require_same_space(encoder_uri, encoder.space_id, index_uri, index.space_id)
    return ServedPair(
        generation=generation,
        encoder_uri=exact_version(storage.absolute(encoder_uri), encoder)
        if encoder_uri and encoder
        else None,
        index_uri=exact_version(storage.absolute(index_uri), index),
        space_id=index.space_id,
        index_version=index.fingerprint[:_HEX_DIGITS],
    )


def is_available(pair: ServedPair) -> bool:
    """Whether both versions still exist, with all files."""
    try:
        open_artifact(pair.index_uri, IndexBundleManifest)
        if pair.encoder_uri is not None:
            open_artifact(pair.encoder_uri, EncoderBundleManifest)
    except (DamagedData, InputError):
        return False
    return True


def exact_version(uri: str, manifest: Manifest) -> str:
    """The URI at which this version can still be opened after the next publication at `uri`.

    It is `uri` itself for an artifact without versions, such as one that an earlier release of raysys made.
    """
    version = storage.join(uri, manifest.folder or version_of(manifest))
    found = read_manifest(version, type(manifest))
    return version if found is not None and found.fingerprint == manifest.fingerprint else uri


def version_of(manifest: Manifest) -> str:
    """The folder of a version whose files also lie beside the manifest; hidden from readers of these."""
    return f".version-{manifest.fingerprint[:_HEX_DIGITS]}"


def versions_in_use(uri: str) -> set[str]:
    """The folders below an artifact that services under its root serve, or served before the last switch."""
    in_use = set()
    uri = storage.absolute(uri)
    folder = storage.join(_root_of(uri), SERVED)
    for name in storage.list_files(folder):
        with contextlib.suppress(DamagedData):
            served = read_served(storage.join(folder, name))
            for pair in (served.active, served.previous) if served else ():
                for version in (pair.encoder_uri, pair.index_uri) if pair else ():
                    if version is not None and version.startswith(f"{uri}/"):
                        in_use.add(version[len(uri) + 1 :])
    return in_use


def _root_of(uri: str) -> str:
    """Every artifact lies two levels below `root` (`ArtifactLayout`)."""
    return uri.rsplit("/", 2)[0]
