"""`CatalogRow`: a row of a catalogue with its columns mapped by the configuration and its values typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raysys import storage
from raysys.config.schema import AttributeType, Columns
from raysys.pack.catalog.raw_rows import RawRow, Refusal
from raysys.pack.catalog.values import as_id, as_text, as_type, require_unicode
from raysys.types import Attributes, AttributeValue


@dataclass(frozen=True)
class CatalogRow:
    """A row of a catalogue before its photo is read and its title is cleaned."""

    item_id: str
    title: str
    photo: str | bytes
    """An absolute path or URI, "" if the row has none; or the bytes of the photo."""
    attributes: Attributes
    split: str | None
    """The value of the split column, or the split that the row's folder names."""
    source: str
    """File and line (or row number), for the ledger."""
    refusal: Refusal | None = None
    """The first error of the row; None if all values could be converted."""


def required_columns(columns: Columns, split_column: str | None) -> dict[str, str]:
    """Setting -> column, for every column that must exist."""
    required = {
        f"catalog.columns.{field}": getattr(columns, field) for field in ("item_id", "title", "image")
    }
    required |= {f"catalog.columns.attributes.{name}": name for name in columns.attributes}
    return required | ({"pack.split.column": split_column} if split_column else {})


def to_row(
    raw: RawRow, columns: Columns, photo_folder: str, split_column: str | None, folder_split: str | None
) -> CatalogRow:
    """Convert a raw row; its first error becomes its refusal. `photo_folder` is absolute."""
    values = _Converter(raw.values, raw.refusal)
    split = values.text(split_column, "split") if split_column else None
    return CatalogRow(
        item_id=values.text(columns.item_id, "item id", as_id),
        title=values.text(columns.title, "title"),
        photo=values.photo(columns.image, photo_folder),
        attributes={name: values.attribute(name, kind) for name, kind in columns.attributes.items()},
        split=split or (folder_split if split_column else None),
        source=raw.source,
        refusal=values.refusal,
    )


class _Converter:
    """Converts values of a row by column and records the first error."""

    def __init__(self, values: Mapping[str, Any], refusal: Refusal | None) -> None:
        self._values = values
        self.refusal = refusal

    def text(self, column: str, meaning: str, convert: Callable[[Any], str] = as_text) -> str:
        try:
            return convert(self._values.get(column))
        except ValueError as error:
            self._refuse(f"bad_{meaning.replace(' ', '_')}", f"{meaning} in column '{column}' {error}")
            return ""

    def attribute(self, column: str, kind: AttributeType) -> AttributeValue:
        value = self._values.get(column)
        try:
            return as_type(value, kind)
        except ValueError as error:
            self._refuse("bad_attribute", f"attribute '{column}' {error}")
            return None

    def photo(self, column: str, folder: str) -> str | bytes:
        value = self._values.get(column)
        if isinstance(value, dict):  # the struct in which Hugging Face datasets store a photo
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        try:
            if value is None or isinstance(value, str):
                return _absolute(require_unicode(value or ""), folder)
            raise ValueError(f"should be a path, a URI or bytes, got {value!r:.80}")
        except ValueError as error:
            self._refuse("bad_image", f"image in column '{column}' {error}")
            return ""

    def _refuse(self, reason: str, detail: str) -> None:
        self.refusal = self.refusal or Refusal(reason, detail)


def _absolute(photo: str, folder: str) -> str:
    if not photo or "://" in photo:
        return photo
    return photo if photo.startswith("/") else storage.join(folder, photo)
