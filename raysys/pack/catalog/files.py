"""The files of a catalogue: a path, a glob or a folder. The file name decides the format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from raysys import storage
from raysys.config.schema import FolderCatalog, TableCatalog, TableFormat
from raysys.errors import InputError, MissingError
from raysys.pack.catalog.delimited import read_delimited
from raysys.pack.catalog.json_lines import read_json_lines
from raysys.pack.catalog.listing import is_visible, require_readable, visible
from raysys.pack.catalog.parquet import read_parquet
from raysys.pack.catalog.raw_rows import RawRow
from raysys.pack.catalog.rows import CatalogRow, required_columns, to_row

_FORMATS: dict[str, TableFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_KNOWN_EXTENSIONS = f"{', '.join(_FORMATS)} (text also with .gz)"
_METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# The folder names that Hugging Face datasets recognise as splits.
_SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "test": "test",
}


@dataclass(frozen=True)
class CatalogFile:
    """One file of rows."""

    uri: str
    format: TableFormat
    photo_folder: str
    """The folder that relative photo paths start from."""
    split: str | None = None
    """The split that its folder names."""

    def rows(self, section: TableCatalog | FolderCatalog, split_column: str | None) -> Iterator[CatalogRow]:
        """Its rows in order, with one batch in memory at a time.

        `split_column` holds the split of each row; None if the split does not come from a column. In a folder
        that names a split the column is optional.
        Raises: MissingError; InputError for a missing column and for content of another format.
        """
        required = required_columns(section.columns, None if self.split else split_column)
        optional = (split_column,) if self.split and split_column else ()
        photo_folder = storage.absolute(self.photo_folder)
        for raw in self._raw_rows(required, optional, section.separator):
            yield to_row(raw, section.columns, photo_folder, split_column, self.split)

    def _raw_rows(
        self, required: dict[str, str], optional: tuple[str, ...], separator: str | None
    ) -> Iterator[RawRow]:
        match self.format:
            case "csv":
                return read_delimited(self.uri, required, optional, separator=separator, usual=",")
            case "tsv":
                return read_delimited(self.uri, required, optional, separator=separator, usual="\t")
            case "jsonl":
                return read_json_lines(self.uri, required)
            case "parquet":
                return read_parquet(self.uri, required, optional)


def catalog_files(section: TableCatalog | FolderCatalog) -> list[CatalogFile]:
    """The files of a catalogue in the order of their names; no file is opened.

    Raises: MissingError if there are none, InputError for a file of an unknown type.
    """
    return _tables(section) if isinstance(section, TableCatalog) else _metadata_tables(section)


def _tables(section: TableCatalog) -> list[CatalogFile]:
    if section.images:
        storage.require_folder(section.images)
    if storage.is_folder(section.path):
        names = visible(section.path, storage.list_files(section.path, hidden=True))
        names = [name for name in names if _is_table(name, section.format)]
        uris = [storage.join(section.path, name) for name in names]
    elif storage.is_file(section.path):
        uris = [section.path]
    else:
        uris = _match_glob(section.path)
    if not uris:
        raise MissingError(
            f"{section.path}: no such catalogue; set catalog.path to a file, a glob or a folder of "
            f"{_KNOWN_EXTENSIONS}"
        )
    return [
        CatalogFile(
            require_readable(uri), section.format or _format_of(uri), section.images or _folder_of(uri)
        )
        for uri in uris
    ]


def _metadata_tables(section: FolderCatalog) -> list[CatalogFile]:
    if not storage.is_folder(section.path):
        raise MissingError(f"{section.path}: no such folder; set catalog.path to an image folder")
    subfolders = [name for name in storage.list_folders(section.path) if is_visible(name)]
    files = [
        CatalogFile(storage.join(folder, name), _format_of(name), folder, split)
        for folder, split in [
            (section.path, None),
            *((storage.join(section.path, name), _SPLIT_FOLDERS.get(name)) for name in subfolders),
        ]
        if (name := _metadata_file(folder))
    ]
    if not files:
        raise MissingError(
            f"{section.path}: no {', '.join(_METADATA_FILES)} in the folder or its sub-folders, so its "
            "photos have no titles; write one with file_name, an id and a title"
        )
    return files


def _metadata_file(folder: str) -> str | None:
    names = [name for name in _METADATA_FILES if storage.exists(storage.join(folder, name))]
    if len(names) > 1:
        raise InputError(f"{folder}: {' and '.join(names)} describe the same photos; keep one of them")
    return names[0] if names else None


def _match_glob(pattern: str) -> list[str]:
    """The files that match a glob; `*` does not match a slash."""
    parts = pattern.split("/")
    is_pattern = [any(sign in part for sign in "*?[") for part in parts]
    if not any(is_pattern):
        return []
    first = is_pattern.index(True)
    base = "/".join(parts[:first]) or ("/" if pattern.startswith("/") else ".")
    matching = [name for name in storage.list_files(base, hidden=True) if _matches(name, parts[first:])]
    return [storage.join(base, name) for name in visible(pattern, matching)]


def _matches(name: str, patterns: list[str]) -> bool:
    names = name.split("/")
    # A folder may be named as the pattern is written: `[old]`.
    return len(names) == len(patterns) and all(
        part == pattern or fnmatchcase(part, pattern) for part, pattern in zip(names, patterns, strict=True)
    )


def _is_table(name: str, configured_format: TableFormat | None) -> bool:
    """Whether a file of a folder is one of its tables: photos and notes may lie beside them."""
    last = name.rsplit("/", 1)[-1]
    if last.startswith("_"):  # Spark writes files such as _SUCCESS beside its parts
        return False
    known_format = _FORMATS.get(_extension(last))
    if configured_format is None:
        return known_format is not None
    return known_format == configured_format or "." not in last


def _format_of(uri: str) -> TableFormat:
    known_format = _FORMATS.get(_extension(uri))
    if known_format is None or (known_format == "parquet" and uri.lower().endswith(".gz")):
        raise InputError(
            f"{uri}: unknown file type; use one of {_KNOWN_EXTENSIONS} in its name, or set catalog.format"
        )
    return known_format


def _extension(name: str) -> str:
    stem = name.lower().removesuffix(".gz").rsplit("/", 1)[-1]
    return stem[stem.rfind(".") :] if "." in stem else ""


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0] or "."
