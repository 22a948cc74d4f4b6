"""The files of a catalogue, found and told apart by their names; each streams its own rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pyarrow.fs as pafs

from raysys import storage
from raysys.config.schema import FolderCatalog, TableCatalog, TableFormat
from raysys.errors import InputError, MissingError
from raysys.pack.catalog.delimited import read_delimited
from raysys.pack.catalog.json_lines import read_json_lines
from raysys.pack.catalog.parquet import read_parquet
from raysys.pack.catalog.rows import CatalogRow, to_row, wanted_columns
from raysys.pack.catalog.table import Record

_EXTENSIONS: dict[str, TableFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_KNOWN = f"{', '.join(_EXTENSIONS)} (text also with .gz)"
# The names that Hugging Face knows for the folder of a split.
_SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "test": "test",
}


@dataclass(frozen=True)
class CatalogSource:
    """One file of rows."""

    uri: str
    format: TableFormat
    images: str  # what its image paths are relative to
    split: str | None = None  # the split its folder names

    def rows(self, section: TableCatalog | FolderCatalog, split_column: str | None) -> Iterator[CatalogRow]:
        """Its rows in order, a batch of them in memory at a time.

        `split_column` holds the split of a row; null leaves it out. In a folder that names a split the
        column may be absent.
        Raises: MissingError, InputError for a column that is absent and for what is not of its format.
        """
        wanted = wanted_columns(section.columns, None if self.split else split_column)
        optional = (split_column,) if self.split and split_column else ()
        images = storage.absolute(self.images)
        for record in self._records(wanted, optional):
            yield to_row(record, section.columns, images, split_column, self.split)

    def _records(self, wanted: dict[str, str], optional: tuple[str, ...]) -> Iterator[Record]:
        match self.format:
            case "csv":
                return read_delimited(self.uri, wanted, optional, separator=",")
            case "tsv":
                return read_delimited(self.uri, wanted, optional, separator="\t")
            case "jsonl":
                return read_json_lines(self.uri, wanted)
            case "parquet":
                return read_parquet(self.uri, wanted, optional)


def sources(section: TableCatalog | FolderCatalog) -> list[CatalogSource]:
    """The files of a catalogue, in the order of their names; none of them is opened.

    Raises: MissingError if there is none, InputError for a file of an unknown kind.
    """
    return _tables(section) if isinstance(section, TableCatalog) else _metadata(section)


def _tables(section: TableCatalog) -> list[CatalogSource]:
    kind = _file_type(section.path)
    if kind == pafs.FileType.File:
        uris = [section.path]
    elif kind == pafs.FileType.Directory:
        names = [name for name in storage.list_files(section.path) if _is_table(name, section.format)]
        uris = [storage.join(section.path, name) for name in names]
    else:
        uris = _matching(section.path)
    if not uris:
        raise MissingError(
            f"{section.path}: no such catalogue; set catalog.path to a file, a glob or a folder of {_KNOWN}"
        )
    return [
        CatalogSource(uri, section.format or _format_of(uri), section.images or _folder_of(uri))
        for uri in uris
    ]


def _metadata(section: FolderCatalog) -> list[CatalogSource]:
    if _file_type(section.path) != pafs.FileType.Directory:
        raise MissingError(f"{section.path}: no such folder; set catalog.path to an image folder")
    filesystem, path = storage.resolve(section.path)
    beside = filesystem.get_file_info(pafs.FileSelector(path))
    folders = sorted(info.base_name for info in beside if info.type == pafs.FileType.Directory)
    found = [
        CatalogSource(storage.join(folder, name), _format_of(name), folder, split)
        for folder, split in [
            (section.path, None),
            *((storage.join(section.path, name), _SPLIT_FOLDERS.get(name)) for name in folders),
        ]
        if (name := _metadata_of(folder))
    ]
    if not found:
        raise MissingError(
            f"{section.path}: no {', '.join(_METADATA)} in the folder or its sub-folders, so its photos have "
            "no titles; write one with file_name, an id and a title"
        )
    return found


def _metadata_of(folder: str) -> str | None:
    found = [name for name in _METADATA if storage.exists(storage.join(folder, name))]
    if len(found) > 1:
        raise InputError(f"{folder}: {' and '.join(found)} describe the same photos; leave one of them")
    return found[0] if found else None


def _file_type(uri: str) -> pafs.FileType:
    filesystem, path = storage.resolve(uri)
    return filesystem.get_file_info(path).type


def _matching(pattern: str) -> list[str]:
    """The files that a glob means; a star stands for anything within one name."""
    parts = pattern.split("/")
    is_pattern = [any(sign in part for sign in "*?[") for part in parts]
    if not any(is_pattern):
        return []
    base = "/".join(parts[: is_pattern.index(True)]) or ("/" if pattern.startswith("/") else ".")
    wanted = parts[is_pattern.index(True) :]
    return [
        storage.join(base, name)
        for name in storage.list_files(base)
        if len(found := name.split("/")) == len(wanted) and all(map(fnmatchcase, found, wanted))
    ]


def _is_table(name: str, format_said: TableFormat | None) -> bool:
    """Whether a file of a folder is one of its tables: photos and notes may lie beside them."""
    last = name.rsplit("/", 1)[-1]
    if last.startswith("_"):  # what Spark leaves beside its parts
        return False
    found = _EXTENSIONS.get(_extension(last))
    return found is not None if format_said is None else found == format_said or "." not in last


def _format_of(uri: str) -> TableFormat:
    found = _EXTENSIONS.get(_extension(uri))
    if found is None or (found == "parquet" and uri.lower().endswith(".gz")):
        raise InputError(f"{uri}: of an unknown kind; name it {_KNOWN}, or set catalog.format")
    return found


def _extension(name: str) -> str:
    stem = name.lower().removesuffix(".gz").rsplit("/", 1)[-1]
    return stem[stem.rfind(".") :] if "." in stem else ""


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0] or "."
