"""Find the shards that a folder, a tar, a pattern or a URI names, and what a manifest states about them.

The tars of one folder are a source. In a ShardSet, the manifest states which tars exist and what each one
contains. Any other folder is a third-party WebDataset: its tars are what the folder lists.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from raysys import artifacts, storage
from raysys.artifacts import MANIFEST, ShardSetManifest
from raysys.errors import MissingError
from raysys.shards.paths import TAR_NAME, WILDCARD, expand_braces
from raysys.shards.reader import ShardRef, shards_in_manifest
from raysys.verify.health import Finding


@dataclass(frozen=True)
class ShardSource:
    """The shards of a folder, and the findings about the folder itself."""

    uri: str
    shards: tuple[ShardRef, ...]
    manifest: ShardSetManifest | None = None  # only for a complete ShardSet
    findings: tuple[Finding, ...] = ()


def find_sources(paths: Sequence[str]) -> list[ShardSource]:
    """The shards that the paths name, each one once, grouped by folder.

    Raises: MissingError for a path that does not exist or contains no tar; InputError for braces that cannot
    be expanded.
    """
    sources: dict[str, ShardSource] = {}
    for path in paths:
        for expanded in expand_braces(path):
            for source in _find(storage.absolute(expanded).rstrip("/"), expanded):
                known = sources.get(source.uri)
                sources[source.uri] = _merge(known, source) if known else source
    return list(sources.values())


def open_shard_set(uri: str) -> ShardSource:
    """The ShardSet at a URI.

    Raises: MissingError if there is none.
    """
    if not storage.exists(storage.join(uri, MANIFEST)):
        command = ShardSetManifest.made_by
        raise MissingError(f"{uri}: no ShardSet here (no {MANIFEST}); make it with `{command}`")
    return _folder_source(uri, [name for name in storage.list_files(uri) if _is_tar(name)])


def common_parts(uris: Sequence[str]) -> list[str]:
    """The leading path parts that all URIs share."""
    columns = zip(*(uri.split("/") for uri in uris), strict=False)
    return [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns)]


def _find(uri: str, path: str) -> list[ShardSource]:
    """The sources at an absolute URI; `path` is how the user wrote it, for messages."""
    if storage.is_folder(uri):
        sources = _sources_below(uri)
    elif storage.exists(uri):
        folder, _, name = uri.rpartition("/")
        sources = [_tars_source(folder, name)]
    elif WILDCARD.search(uri):
        sources = _matching_sources(uri)
    else:
        raise MissingError(f"{path}: no such file or folder; check the path")
    if not sources:
        raise MissingError(
            f"{path}: no tar there; give a folder with tars, a tar, or a pattern such as '*.tar'"
        )
    return sources


def _sources_below(uri: str) -> list[ShardSource]:
    names_by_folder: dict[str, list[str]] = {}
    for path in storage.list_files(uri):
        folder, _, name = path.rpartition("/")
        if _is_tar(name) or name == MANIFEST:
            names_by_folder.setdefault(folder, []).append(name)
    sources = [
        _folder_source(
            storage.join(uri, folder) if folder else uri, [name for name in names if _is_tar(name)]
        )
        for folder, names in sorted(names_by_folder.items())
    ]
    versions = {_files_uri(source) for source in sources if _files_uri(source) != source.uri}
    # A folder without tars counts if it has the manifest of a ShardSet: its tars are then missing.
    return [source for source in sources if source.uri not in versions and (source.shards or source.manifest)]


def _matching_sources(pattern: str) -> list[ShardSource]:
    parts = pattern.split("/")
    num_fixed = next(number for number, part in enumerate(parts) if WILDCARD.search(part))
    root, patterns = "/".join(parts[:num_fixed]), parts[num_fixed:]
    names_by_folder: dict[str, list[str]] = {}
    for path in storage.list_files(root) if storage.is_folder(root) else ():
        names = path.split("/")
        if len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns)):
            names_by_folder.setdefault("/".join([root, *names[:-1]]), []).append(names[-1])
    return [_tars_source(folder, *names) for folder, names in names_by_folder.items()]


def _folder_source(uri: str, names: list[str]) -> ShardSource:
    """A complete folder: in a ShardSet, exactly the tars that its manifest names should exist."""
    manifest, findings = _read_manifest(uri)
    if manifest is None:
        tars = tuple(ShardRef(storage.join(uri, name)) for name in names)
        return ShardSource(uri, tars, None, tuple(findings if names else []))
    shards = tuple(shards_in_manifest(uri, manifest))
    named = {shard.uri for shard in shards}
    for tar_uri in _tars_of_shard_set(uri, manifest, names):
        if tar_uri not in named:
            detail = "the manifest does not name this tar: raysys ignores it, other readers may not"
            findings.append(Finding("unnamed_shard", tar_uri, detail))
    return ShardSource(uri, shards, manifest, tuple(findings))


def _tars_of_shard_set(uri: str, manifest: ShardSetManifest, names: list[str]) -> list[str]:
    """The tars `names` of the folder, and those of its published version; a pack may be writing others."""
    if not manifest.folder:
        return [storage.join(uri, name) for name in names]
    folder = artifacts.files_uri(uri, manifest)
    beside = [storage.join(uri, name) for name in names if "/" not in name]
    return beside + [storage.join(folder, name) for name in storage.list_files(folder) if _is_tar(name)]


def _files_uri(source: ShardSource) -> str:
    return artifacts.files_uri(source.uri, source.manifest) if source.manifest else source.uri


def _tars_source(uri: str, *names: str) -> ShardSource:
    """Some tars of a folder; if it is a ShardSet, each tar is still checked against the manifest."""
    manifest, _ = _read_manifest(uri)
    in_manifest = {shard.uri: shard for shard in shards_in_manifest(uri, manifest)} if manifest else {}
    tar_uris = [storage.join(uri, name) for name in names]
    return ShardSource(uri, tuple(in_manifest.get(tar_uri, ShardRef(tar_uri)) for tar_uri in tar_uris))


def _read_manifest(uri: str) -> tuple[ShardSetManifest | None, list[Finding]]:
    """The manifest of a ShardSet, or None; a finding if it cannot be read."""
    path = storage.join(uri, MANIFEST)
    if not storage.exists(path):
        return None, []
    try:
        fields = json.loads(storage.read_bytes(path))
        if not isinstance(fields, dict) or fields.get("kind") != "ShardSet":
            return None, []  # the file of another tool, or of another artifact
        return ShardSetManifest.model_validate(fields), []
    except ValueError as error:  # includes pydantic's ValidationError
        return None, [Finding("bad_manifest", path, " ".join(str(error).split())[:160])]


def _merge(first: ShardSource, second: ShardSource) -> ShardSource:
    """Two sources of one folder as one; a complete ShardSet already contains the tars of the other."""
    if first.manifest or second.manifest:
        return first if first.manifest else second
    shards = {shard.uri: shard for shard in (*first.shards, *second.shards)}
    return ShardSource(first.uri, tuple(shards.values()), None, first.findings or second.findings)


def _is_tar(name: str) -> bool:
    return TAR_NAME.search(name) is not None
