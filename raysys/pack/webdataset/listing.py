"""The tars of a WebDataset and the fingerprint of all of them: path, size and modification time of each."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from raysys import artifacts, storage
from raysys.artifacts import InputEntry
from raysys.config.schema import ColumnSplit, PackConfig, WebDatasetCatalog
from raysys.errors import InputError, MissingError
from raysys.pack.catalog.listing import require_readable, visible
from raysys.shards.paths import TAR_NAME, WILDCARD, expand_braces
from raysys.tracking.logs import log


@dataclass(frozen=True)
class SourceTar:
    """A tar of the WebDataset."""

    number: int
    uri: str
    num_bytes: int
    """-1 for a tar that a range names and that does not exist."""

    @property
    def stem(self) -> str:
        """The name of its file in the scratch folder, without extension."""
        return f"part-{self.number:06d}"


@dataclass(frozen=True)
class WebDataset:
    """The input of a pack that refers to tars."""

    section: WebDatasetCatalog
    split_column: str | None
    tars: Sequence[SourceTar]
    entry: InputEntry
    """Path and fingerprint, as the manifests record them."""


def open_webdataset(section: WebDatasetCatalog, pack: PackConfig) -> WebDataset:
    """List the tars; none is opened.

    Raises: MissingError if there is none; InputError for braces that cannot be expanded, and for
    `pack.parent`.
    """
    if pack.parent is not None:
        raise InputError(
            f"pack.parent: {pack.parent}: a pack of kind webdataset copies no photos, so there is nothing to "
            "inherit; remove pack.parent"
        )
    uris = [require_readable(uri) for uri in _tar_uris(section.path)]
    stats = storage.stat_files(uris)
    if all(num_bytes < 0 for num_bytes, _ in stats):
        raise MissingError(
            f"{section.path}: no tar there; set catalog.path to a range such as 'x/{{00000..00999}}.tar', a "
            "glob, a tar or a folder with tars"
        )
    if missing := [uri for uri, (num_bytes, _) in zip(uris, stats, strict=True) if num_bytes < 0]:
        log.warning(
            "     pack  %s: %d of its %d tars do not exist (first: %s)",
            section.path,
            len(missing),
            len(uris),
            missing[0],
        )
    tars = [
        SourceTar(number, uri, num_bytes)
        for number, (uri, (num_bytes, _)) in enumerate(zip(uris, stats, strict=True))
    ]
    # The URIs count: the ShardSets refer to them.
    content = [[uri, *stat] for uri, stat in zip(uris, stats, strict=True)]
    fingerprint = storage.sha256_of_bytes(artifacts.canonical_json(content).encode())
    split_column = pack.split.column if isinstance(pack.split, ColumnSplit) else None
    return WebDataset(section, split_column, tars, InputEntry(uri=section.path, fingerprint=fingerprint))


def _tar_uris(path: str) -> list[str]:
    """The absolute URIs of the tars, each once: in the order of the range, names in order."""
    uris: list[str] = []
    for expanded in expand_braces(path):
        uri = storage.absolute(expanded).rstrip("/")
        if TAR_NAME.search(uri) and not WILDCARD.search(uri):
            uris.append(uri)  # of a range there may be thousands: they are looked up together
        elif storage.is_folder(uri):
            names = visible(uri, storage.list_files(uri, hidden=True))
            uris += [storage.join(uri, name) for name in names if TAR_NAME.search(name)]
        elif storage.is_file(uri):
            uris.append(uri)
        elif WILDCARD.search(uri):
            uris += _match(uri)
    return list(dict.fromkeys(uris))


def _match(pattern: str) -> list[str]:
    """The tars that match a pattern; `*` does not match a slash."""
    parts = pattern.split("/")
    num_fixed = next(number for number, part in enumerate(parts) if WILDCARD.search(part))
    root, patterns = "/".join(parts[:num_fixed]) or "/", parts[num_fixed:]
    names = storage.list_files(root, hidden=True) if storage.is_folder(root) else {}
    matching = [name for name in names if TAR_NAME.search(name) and _is_match(name.split("/"), patterns)]
    return [storage.join(root, name) for name in visible(pattern, matching)]


def _is_match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))
