"""A catalogue as rows: read from a table, with its columns mapped and its types checked."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from raysys import storage
from raysys.artifacts import InputEntry
from raysys.config.schema import AttributeType, Columns, TableCatalog
from raysys.errors import InputError, MissingError, did_you_mean
from raysys.records import Attributes, AttributeValue


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a number that JSON can hold")
    return number


_PARSERS: dict[str, Callable[[str], AttributeValue]] = {"text": str, "integer": int, "number": _finite}


@dataclass(frozen=True)
class CatalogRow:
    """A row of a catalogue, before anything about it was judged."""

    item_id: str
    title: str
    image_uri: str
    attributes: Attributes
    split: str | None
    source: str  # where it stands, for the ledger


def read_catalog(section: TableCatalog, split_column: str | None = None) -> list[CatalogRow]:
    """All rows of a table, in order.

    Raises: MissingError without the file, InputError for a missing column, a damaged or an empty table.
    """
    images = section.images or section.path.rpartition("/")[0] or "."
    rows = [
        _to_row(record, section, images, split_column, f"{section.path}:{line}")
        for line, record in enumerate(_read_csv(section, split_column), start=2)
    ]
    if not rows:
        raise InputError(
            f"{section.path}: the catalogue is empty; it needs at least one row under its header"
        )
    return rows


def fingerprint_catalog(section: TableCatalog, rows: list[CatalogRow]) -> InputEntry:
    """What the catalogue is now: the table's bytes, and size and time of every photo it names."""
    digest = hashlib.sha256(storage.read_bytes(section.path))
    for size, modified_ns in storage.stat_files([row.image_uri for row in rows]):
        digest.update(f"{size} {modified_ns}".encode())
    return InputEntry(uri=section.path, fingerprint=digest.hexdigest())


def _read_csv(section: TableCatalog, split_column: str | None) -> Iterator[dict[str, str]]:
    if not storage.exists(section.path):
        raise MissingError(f"{section.path}: no such catalogue; set catalog.path to a CSV file")
    names = _column_names(section.path)
    wanted = _wanted_columns(section.columns, split_column)
    _require_columns(section.path, wanted, names)
    # Everything as text: an id of digits must keep its leading zeros.
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=list(wanted.values())
    )
    parse = pacsv.ParseOptions(newlines_in_values=True)
    try:
        with (
            storage.open_input(section.path) as stream,
            pacsv.open_csv(stream, convert_options=convert, parse_options=parse) as reader,
        ):
            for batch in reader:
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{section.path}: not a readable CSV ({str(error)[:160]}); write UTF-8 with commas"
        ) from error


def _column_names(path: str) -> list[str]:
    with storage.open_input(path) as stream:
        header = stream.read(1 << 20).decode("utf-8-sig", errors="replace").split("\n", 1)[0]
    return next(csv.reader([header.rstrip("\r")]), [])


def _wanted_columns(columns: Columns, split_column: str | None) -> dict[str, str]:
    wanted = {
        "catalog.columns.item_id": columns.item_id,
        "catalog.columns.title": columns.title,
        "catalog.columns.image": columns.image,
    }
    wanted |= {f"catalog.columns.attributes.{name}": name for name in columns.attributes}
    return wanted | ({"pack.split.column": split_column} if split_column else {})


def _require_columns(path: str, wanted: dict[str, str], found: list[str]) -> None:
    for key, name in wanted.items():
        if name not in found:
            hint = did_you_mean(name, found)
            raise InputError(
                f"{path}: no column '{name}' (found: {', '.join(found) or 'none'}); set {key}{hint}"
            )


def _to_row(
    record: dict[str, str], section: TableCatalog, images: str, split_column: str | None, source: str
) -> CatalogRow:
    columns = section.columns
    image = record[columns.image] or ""
    return CatalogRow(
        item_id=(record[columns.item_id] or "").strip(),
        title=record[columns.title] or "",
        image_uri=image
        if image.startswith("/") or "://" in image or not image
        else storage.join(images, image),
        attributes={
            name: _typed(record[name], kind, source, name) for name, kind in columns.attributes.items()
        },
        split=record[split_column] if split_column else None,
        source=source,
    )


def _typed(text: str, kind: AttributeType, source: str, name: str) -> AttributeValue:
    if text == "":
        return None
    try:
        if kind == "boolean":
            return bool({"1": 1, "true": 1, "0": 0, "false": 0}[text.strip().lower()])
        return _PARSERS[kind](text)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{source}: attribute '{name}' should be of type {kind}, got {text!r}; "
            f"mend the row or change catalog.columns.attributes.{name}"
        ) from error
