"""The directory of an artifact: begin it, publish it, open it.

`manifest.json` is written last and atomically: a directory without one does not exist for any reader.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import logging
import os
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pydantic

from raysys import storage
from raysys.artifacts.manifest import (
    AnyManifest,
    ArtifactSpec,
    EmbeddingSetManifest,
    EncoderBundleManifest,
    FileEntry,
    InputEntry,
    Manifest,
    hash_json,
)
from raysys.errors import DamagedData, InputError, MissingArtifact, SpaceMismatch
from raysys.version import __version__

log = logging.getLogger("raysys")
MANIFEST = "manifest.json"
_IN_PROGRESS = ".spec_hash"  # the spec hash of an artifact that is being made


def open_artifact(uri: str, manifest: type[AnyManifest]) -> AnyManifest:
    """The manifest of an existing artifact, checked against the sizes of its files.

    Raises: MissingArtifact if there is none, InputError if it is of another kind, DamagedData if a file is
    missing or has another size.
    """
    found = read_manifest(uri, manifest)
    if found is None:
        reason = f"no {MANIFEST}"
        if storage.exists(path := storage.join(uri, MANIFEST)):
            reason = f"{MANIFEST} has format {json.loads(storage.read_bytes(path)).get('format')}, "
            reason += f"{_format(manifest)} is read"
        raise MissingArtifact(
            f"{uri}: no {_kind(manifest)} here ({reason}); make it with `{manifest.made_by}`"
        )
    try:
        _check_sizes(uri, found)
    except DamagedData:
        if read_manifest(uri, manifest) == found:
            raise
        return open_artifact(uri, manifest)  # it was replaced, and the files of the old one deleted
    return found


def read_manifest(uri: str, manifest: type[AnyManifest]) -> AnyManifest | None:
    """The manifest alone, without a look at its files; None if there is none, or one of another format.

    Raises: InputError if it is of another kind, DamagedData if it is no manifest.
    """
    path = storage.join(uri, MANIFEST)
    if not storage.exists(path):
        return None
    try:
        content = json.loads(storage.read_bytes(path))
        if content.get("kind") != (kind := _kind(manifest)):
            raise InputError(f"{uri}: a {kind} is needed, found a {content.get('kind')}; check the path")
        if content.get("format") != _format(manifest):
            return None
        return manifest.model_validate(content)
    except (ValueError, AttributeError, pydantic.ValidationError) as error:
        raise DamagedData(
            f"{path}: not a manifest ({' '.join(str(error).split())[:120]}); "
            f"`{_builder(manifest)}` makes it again"
        ) from error


def find_up_to_date(spec: ArtifactSpec) -> Manifest | None:
    """The manifest if the artifact is complete and its spec hash is that of `spec`, else None.

    Its builder calls this: what a reader refuses as damaged, a builder logs and makes again. On a local disk,
    files that were modified after the manifest are compared by SHA-256, too.
    """
    try:
        found = read_manifest(spec.uri, spec.manifest)
        if found is None or found.spec_hash != spec.spec_hash:
            return None
        _check_sizes(spec.uri, found)
        _check_modified(spec.uri, found)
    except DamagedData as error:
        log.warning("damaged, to be made again: %s", str(error).split(";")[0])
        return None
    return found


def intact_files(uri: str, manifest: Manifest) -> set[str]:
    """The files of the artifact at `uri` in which `find_up_to_date` sees no damage."""
    present = manifest.files.keys() - _wrong_sizes(uri, manifest).keys()
    return present - _modified(uri, manifest, present).keys()


def files_uri(uri: str, manifest: Manifest) -> str:
    """The folder with the files of the artifact at `uri`."""
    return storage.join(uri, manifest.folder) if manifest.folder else uri


def begin(spec: ArtifactSpec, keep: Collection[str] = ()) -> None:
    """Prepare the directory: keep the files of an interrupted attempt at the same spec, delete all others.

    The folders `keep`, directly in the directory, are not deleted.
    """
    marker = storage.join(spec.uri, _IN_PROGRESS)
    if storage.exists(marker) and storage.read_bytes(marker).decode() == spec.spec_hash:
        return
    storage.delete(storage.join(spec.uri, MANIFEST))  # first: from here on the artifact does not exist
    if keep:
        names = {path.split("/")[0] for path in storage.list_files(spec.uri, hidden=True)}
        for name in names.difference(keep):
            storage.delete(storage.join(spec.uri, name))
    else:
        storage.delete(spec.uri)
    storage.write_bytes(marker, spec.spec_hash.encode())


def publish(uri: str, manifest: AnyManifest) -> AnyManifest:
    """Write `manifest.json`, which makes the directory an artifact."""
    storage.write_bytes(storage.join(uri, MANIFEST), manifest.model_dump_json(indent=2).encode())
    storage.delete(storage.join(uri, _IN_PROGRESS))
    return manifest


def describe_files(uri: str, only: Iterable[str] | None = None) -> dict[str, FileEntry]:
    """Size and SHA-256 of the files of a directory that is about to be published."""
    names = storage.list_files(uri) if only is None else only
    return {name: _describe(storage.join(uri, name)) for name in names if name != MANIFEST}


def common_fields(
    spec: ArtifactSpec, files: dict[str, FileEntry], num_items: int, seconds: float
) -> dict[str, Any]:
    """The fields of every manifest except `kind`, for `SomeManifest(**common_fields(..), ..)`."""
    return {
        "spec_hash": spec.spec_hash,
        "fingerprint": hash_json({name: entry.sha256 for name, entry in files.items()}),
        "config": dict(spec.config),
        "inputs": dict(spec.inputs),
        "files": files,
        "num_items": num_items,
        "code_version": code_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
    }


def as_input(uri: str, manifest: type[Manifest]) -> InputEntry:
    """The entry with which a child records the artifact at `uri`. Raises: MissingArtifact."""
    return InputEntry(uri=uri, fingerprint=open_artifact(uri, manifest).fingerprint)


def make_again(uri: str, manifest: Manifest | type[Manifest]) -> str:
    """The remedy for damage that its stage cannot see: neither size nor modification time has changed."""
    return f"delete {uri}, then run `{_builder(manifest)}` again"


def require_same_space(first: str, first_space_id: str, second: str, second_space_id: str) -> None:
    """Refuse to compare vectors of different embedding spaces (law 1).

    Raises: SpaceMismatch that names both sides.
    """
    if first_space_id != second_space_id:
        raise SpaceMismatch(
            f"{first} is of embedding space {first_space_id[:12]}, {second} of {second_space_id[:12]}: "
            "their vectors cannot be compared; embed and index again with the encoder that is used"
        )


@functools.cache
def code_version() -> str:
    """The version of raysys, with the commit when it runs from a checkout."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{__version__}+{commit}" if commit else __version__


def _check_sizes(uri: str, manifest: Manifest) -> None:
    for damage in _wrong_sizes(uri, manifest).values():
        raise damage


def _wrong_sizes(uri: str, manifest: Manifest) -> dict[str, DamagedData]:
    """The files that are missing or have another size than in the manifest."""
    damages = {}
    folder = files_uri(uri, manifest)
    on_disk = storage.list_files(folder)
    for name, entry in manifest.files.items():
        if on_disk.get(name) != entry.bytes:
            got = f"{on_disk[name]} bytes" if name in on_disk else "nothing"
            damages[name] = DamagedData(
                f"{storage.join(folder, name)}: should have {entry.bytes} bytes, found {got}; "
                f"`{_builder(manifest)}` makes it again"
            )
    return damages


def _check_modified(uri: str, manifest: Manifest) -> None:
    for damage in _modified(uri, manifest, manifest.files).values():
        raise damage


def _modified(uri: str, manifest: Manifest, names: Iterable[str]) -> dict[str, DamagedData]:
    """Of these local files, those that are younger than the manifest, which is written last, and differ."""
    if not storage.is_local(uri):
        return {}
    names, damages = [*names], {}
    folder, path = files_uri(uri, manifest), storage.join(uri, MANIFEST)
    files = [storage.join(folder, name) for name in names]
    (_, published_at), *stats = storage.stat_files([path, *files])
    younger = [name for name, (_, at) in zip(names, stats, strict=True) if at > published_at]
    for name in younger:
        if storage.sha256_of(storage.join(folder, name))[1] != manifest.files[name].sha256:
            damages[name] = DamagedData(
                f"{storage.join(folder, name)}: was modified: its SHA-256 differs from the manifest; "
                f"`{_builder(manifest)}` makes it again"
            )
    if younger and not damages:  # a copy, for example: it is read once
        with contextlib.suppress(OSError):
            os.utime(storage.local_path(path))
    return damages


def _describe(uri: str) -> FileEntry:
    size, sha256 = storage.sha256_of(uri)
    return FileEntry(bytes=size, sha256=sha256)


def _builder(manifest: Manifest | type[Manifest]) -> str:
    """The command that makes the artifact: `raysys embed` for a projected bundle."""
    is_projected = isinstance(manifest, EncoderBundleManifest) and "embeddings" in manifest.inputs
    return EmbeddingSetManifest.made_by if is_projected else manifest.made_by


def _kind(manifest: type[Manifest]) -> str:
    return str(manifest.model_fields["kind"].default)


def _format(manifest: type[Manifest]) -> int:
    return int(manifest.model_fields["format"].default)
