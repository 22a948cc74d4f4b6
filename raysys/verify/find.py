"""Which tars are meant by a word: a folder, a tar, a pattern or a URI; and what a manifest promises of them.

Tars of one folder are a source. One with the manifest of a ShardSet is ours: the manifest says which tars
there are, and what each should hold. Any other is somebody's WebDataset: what is there is all there is.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import braceexpand

from raysys import storage
from raysys.artifacts import MANIFEST, InheritedShard, ShardEntry, ShardSetManifest
from raysys.errors import MissingError
from raysys.shards.shard_set import TOMBSTONES
from raysys.verify.health import Finding


@dataclass(frozen=True)
class ShardPiece:
    """A tar to look at, and what its manifest promises of it."""

    uri: str
    promise: ShardEntry | InheritedShard | None = None
    tombstones_uri: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether raysys made it: such a tar must be in order, too."""
        return self.promise is not None


@dataclass(frozen=True)
class ShardSource:
    """The tars of a folder, and what is wrong with the folder itself."""

    uri: str
    pieces: tuple[ShardPiece, ...]
    manifest: ShardSetManifest | None = None
    findings: tuple[Finding, ...] = ()


def find_sources(words: Sequence[str]) -> list[ShardSource]:
    """The tars that the words mean, each once, by folder.

    Raises: MissingError for a word that means nothing, or no tar.
    """
    sources: dict[str, ShardSource] = {}
    for word in words:
        for uri in braceexpand.braceexpand(word) if "{" in word else [word]:
            for source in _sources_of(storage.absolute(uri).rstrip("/"), uri):
                known = sources.get(source.uri)
                sources[source.uri] = _joined(known, source) if known else source
    return list(sources.values())


def open_shard_set(uri: str) -> ShardSource:
    """The ShardSet at a URI.

    Raises: MissingError if there is none.
    """
    if not storage.exists(storage.join(uri, MANIFEST)):
        made_by = ShardSetManifest.made_by
        raise MissingError(f"{uri}: no ShardSet here (no {MANIFEST}); make it with `{made_by}`")
    return _folder_source(uri, [name for name in storage.list_files(uri) if _is_tar(name)])


def shared_parts(uris: Sequence[str]) -> list[str]:
    """What the paths of all URIs begin with, part by part."""
    columns = zip(*(uri.split("/") for uri in uris), strict=False)
    return [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns)]


def _sources_of(uri: str, word: str) -> list[ShardSource]:
    if storage.is_folder(uri):
        found = _below(uri)
    elif storage.exists(uri):
        found = [_tars_source(*_split(uri))]
    elif re.search(r"[*?\[]", uri):
        found = _matching(uri)
    else:
        raise MissingError(f"{word}: no such file or folder; check the path")
    if not found:
        raise MissingError(
            f"{word}: no tar there; give a folder with tars, a tar, or a pattern such as '*.tar'"
        )
    return found


def _below(uri: str) -> list[ShardSource]:
    names: dict[str, list[str]] = {}
    for path in storage.list_files(uri):
        folder, _, name = path.rpartition("/")
        if _is_tar(name) or name == MANIFEST:
            names.setdefault(folder, []).append(name)
    sources = [
        _folder_source(
            storage.join(uri, folder) if folder else uri, [name for name in found if _is_tar(name)]
        )
        for folder, found in sorted(names.items())
    ]
    # A folder without tars counts if its manifest names some: they are gone.
    return [source for source in sources if source.pieces or source.manifest]


def _matching(pattern: str) -> list[ShardSource]:
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if re.search(r"[*?\[]", part))
    root, wanted = "/".join(parts[:fixed]), parts[fixed:]
    by_folder: dict[str, list[str]] = {}
    for path in storage.list_files(root) if storage.is_folder(root) else ():
        found = path.split("/")
        if len(found) == len(wanted) and all(map(fnmatch.fnmatchcase, found, wanted)):
            by_folder.setdefault("/".join([root, *found[:-1]]), []).append(found[-1])
    return [_tars_source(folder, *names) for folder, names in by_folder.items()]


def _folder_source(uri: str, names: list[str]) -> ShardSource:
    """A whole folder: what its manifest names must be there, and nothing else."""
    manifest, findings = _read_manifest(uri)
    if manifest is None:
        damage = findings if names else []
        return ShardSource(
            uri, tuple(ShardPiece(storage.join(uri, name)) for name in names), None, tuple(damage)
        )
    promised = {entry.name for entry in manifest.shards}
    for name in names:
        if name not in promised:
            detail = "the manifest does not name this tar: raysys never reads it, other readers may"
            findings.append(Finding("unnamed_shard", storage.join(uri, name), detail))
    return ShardSource(uri, _promised(uri, manifest), manifest, tuple(findings))


def _tars_source(uri: str, *names: str) -> ShardSource:
    """Some tars of a folder; a manifest beside them still says what they should hold."""
    manifest, _ = _read_manifest(uri)
    promised = {piece.uri: piece for piece in _promised(uri, manifest)} if manifest else {}
    uris = [storage.join(uri, name) for name in names]
    return ShardSource(uri, tuple(promised.get(tar, ShardPiece(tar)) for tar in uris))


def _promised(uri: str, manifest: ShardSetManifest) -> tuple[ShardPiece, ...]:
    tombstones = storage.join(uri, TOMBSTONES) if manifest.num_tombstones else None
    inherited = [ShardPiece(entry.uri, entry, tombstones) for entry in manifest.inherited]
    own = [ShardPiece(storage.join(uri, entry.name), entry) for entry in manifest.shards]
    return (*inherited, *own)


def _read_manifest(uri: str) -> tuple[ShardSetManifest | None, list[Finding]]:
    """The manifest if there is one of a ShardSet; one that cannot be read is a finding."""
    path = storage.join(uri, MANIFEST)
    if not storage.exists(path):
        return None, []
    try:
        said = json.loads(storage.read_bytes(path))
        if not isinstance(said, dict) or said.get("kind") != "ShardSet":
            return None, []  # some other tool's, or another artifact's
        return ShardSetManifest.model_validate(said), []
    except ValueError as error:  # also pydantic's
        return None, [Finding("bad_manifest", path, " ".join(str(error).split())[:160])]


def _joined(first: ShardSource, second: ShardSource) -> ShardSource:
    """Two sources of one folder as one; a whole ShardSet holds whatever else was named of it."""
    if first.manifest or second.manifest:
        return first if first.manifest else second
    pieces: Iterable[ShardPiece] = {piece.uri: piece for piece in (*first.pieces, *second.pieces)}.values()
    return ShardSource(first.uri, tuple(pieces), None, first.findings or second.findings)


def _split(uri: str) -> tuple[str, str]:
    folder, _, name = uri.rpartition("/")
    return folder, name


def _is_tar(name: str) -> bool:
    return name.endswith(".tar")
